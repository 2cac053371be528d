"""Every stored case of official code is replayed and equals it, tensor by tensor, at the case's own tolerance.

The repository holds 25 MB of cases. Where the environment variable AVTLM_GOLDEN names a folder of more, those are replayed as well.
"""

import os
from pathlib import Path

import pytest

from benchmarks.parity import CASES, explain
from benchmarks.replay import find_cases, replay

MORE = os.environ.get("AVTLM_GOLDEN")
FOLDERS = dict(find_cases(CASES)) | (dict(find_cases(Path(MORE))) if MORE else {})
# Tensors of ``outputs`` that are no outputs, and why they are not compared.
INPUTS = {name: {"prefixes": "the prefixes that are scored."} for name in FOLDERS if name.startswith("decoding/ctc_prefix_")}
INPUTS.pop("decoding/ctc_prefix_espnet", None)


def test_there_are_golden_cases_of_every_kind_that_is_built() -> None:
    systems = {name.split("/")[0] for name in FOLDERS}
    assert {
        "avhubert",
        "vatlm",
        "lip_roi",
        "mt4ssl",
        "speecht5",
        "speech2c",
        "speechlm",
        "mmspeech",
        "mt2kd",
        "decoding",
        "evaluation",
    } <= systems


@pytest.mark.parametrize("name", FOLDERS)
def test_golden_case_equals_the_official_code(name: str) -> None:
    report = replay(FOLDERS[name], name)
    assert report.passed, explain(report)
    assert report.skipped == INPUTS.get(name, {})
