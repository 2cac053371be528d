"""Every stored case of official code is replayed and equals it, tensor by tensor, at the case's own tolerance."""

import pytest

from benchmarks.parity import CASES, explain
from benchmarks.replay import find_cases, replay

FOLDERS = dict(find_cases(CASES))
# Tensors of ``outputs`` that are no outputs, and why they are not compared.
INPUTS = {name: {"prefixes": "the prefixes that are scored."} for name in FOLDERS if name.startswith("decoding/ctc_prefix_")}
INPUTS.pop("decoding/ctc_prefix_espnet", None)


def test_there_are_golden_cases_of_every_kind_that_is_built() -> None:
    systems = {name.split("/")[0] for name in FOLDERS}
    assert {"avhubert", "vatlm", "lip_roi", "decoding", "evaluation"} <= systems


@pytest.mark.parametrize("name", FOLDERS)
def test_golden_case_equals_the_official_code(name: str) -> None:
    report = replay(FOLDERS[name], name)
    assert report.passed, explain(report)
    assert report.skipped == INPUTS.get(name, {})
