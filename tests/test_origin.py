"""A run notes where, with what and how it was started, once for every start."""

import json
import platform
import shlex
from pathlib import Path

import pytest

from avtlm import __version__
from avtlm.origin import STARTS, command, machine, note_start, origin, processor
from tests.made_corpus import make_corpus
from tests.training.made_runs import broken_and_resumed, pretraining


def test_the_command_is_as_one_would_type_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/some/where/bin/avtlm", "train", "a b.yaml", "optim.lr=1e-3"])
    assert command() == "avtlm train 'a b.yaml' optim.lr=1e-3"
    assert shlex.split(command())[2] == "a b.yaml"


def test_an_origin_is_plain_values_with_machine_and_versions() -> None:
    found = json.loads(json.dumps(origin()))
    assert found["machine"] == machine()
    assert found["machine"]["cores"] >= 1
    assert found["versions"]["avtlm"] == __version__
    assert found["versions"]["torch"]
    assert found["time"].endswith("+00:00")


def test_starts_are_added_to_those_before(tmp_path: Path) -> None:
    for step in (0, 5):
        note_start(tmp_path, step=step)
    assert [json.loads(line)["step"] for line in (tmp_path / STARTS).read_text().splitlines()] == [0, 5]


def test_a_run_that_goes_on_has_two_starts(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 6)
    broken_and_resumed(pretraining(corpus, tmp_path / "run", steps=6, save_every=2, log_every=2), number=5)
    starts = [json.loads(line) for line in (tmp_path / "run" / STARTS).read_text().splitlines()]
    assert [(start["step"], start["processes"]) for start in starts] == [(0, 1), (4, 1)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Fast: 9000\n\nmodel name\t: Fast: 9000\n", "Fast: 9000"),
        ("processor\t: 0\nmodel name\t:\n", None),
        (None, None),
    ],
    ids=["named", "without a name", "no list"],
)
def test_a_processor_is_named_by_the_systems_list_or_by_its_architecture(tmp_path: Path, text: str | None, name: str | None) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert processor(tmp_path / "cpuinfo") == (name or platform.processor() or platform.machine())
