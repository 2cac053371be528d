"""Damaged input of every kind ends well, and the benchmark notices when it does not."""

import json
import time
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from avtlm import config
from avtlm.data.manifest import ManifestError, parse_utterance, read_manifest
from avtlm.decoding.settings import DecodingConfig
from avtlm.plain_yaml import ConfigError, parse_yaml
from benchmarks import fuzz, whole_files
from benchmarks.mutations import BINARY, TEXTUAL, mutate

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("id", "video", "audio", "video_frames", "audio_samples", "sample_rate", "transcript", "speaker", "split", "phones", "extra")


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_damaged_files_end_in_a_result_or_in_one_sentence(kind: str) -> None:
    report = fuzz.summary(fuzz.fuzz(150 if kind != "media" else 100, [kind], workers=0, seed=1))
    assert report["failures"] == []
    assert report["kinds"][kind]["refused"] > 0


@settings(max_examples=150, deadline=None)
@given(row=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), VALUES, max_size=6))
def test_any_row_of_a_manifest_is_an_utterance_or_an_error_with_its_line(row: dict[str, object]) -> None:
    try:
        said = f"m.jsonl, line 7, {parse_utterance(row, 'm.jsonl', 7).id}"
    except ManifestError as error:
        said = str(error)
    assert said.startswith("m.jsonl, line 7, ")


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=300)
    | st.text(max_size=200).map(str.encode)
    | st.lists(VALUES, max_size=3).map(lambda rows: "\n".join(json.dumps(row) for row in rows).encode())
)
def test_any_bytes_are_a_manifest_or_an_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    try:
        said = f"{path}: {len(read_manifest(path))} utterances"
    except ManifestError as error:
        said = str(error)
    assert said.startswith(str(path))


@settings(max_examples=100, deadline=None)
@given(data=st.dictionaries(st.sampled_from(["method", "beam", "lexicon", "language_model"]) | st.text(max_size=6), VALUES, max_size=4))
def test_any_values_are_a_configuration_or_an_error_that_names_the_key(data: dict[str, object]) -> None:
    said = "configuration: is one"
    try:
        config.load(DecodingConfig, data)
    except ConfigError as error:
        said = str(error)
    assert said.startswith("configuration: ")
    assert "\n" not in said


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60) | st.text(alphabet="{}[]:,-&*!|>'\"#%@ \n\tab1", max_size=40))
def test_any_text_is_yaml_or_an_error(text: str) -> None:
    said = "here is YAML"
    try:
        parse_yaml(text, "here")
    except ConfigError as error:
        said = str(error)
    assert said.startswith("here")


def test_damage_follows_from_the_seed() -> None:
    data = bytes(range(256)) * 8
    first, again, other = (mutate(data, np.random.default_rng(seed), BINARY) for seed in (1, 1, 2))
    assert first == again != other
    for number in range(300):
        changed, names = mutate(b'{"id": "a", "video": "b"}\n', np.random.default_rng(number), TEXTUAL)
        assert names
        assert isinstance(changed, bytes)
    assert mutate(b"", np.random.default_rng(0), BINARY)[0] == b""


def bad(path: Path) -> tuple[None, list[str]]:
    """A reader with every flaw, chosen by the first byte."""
    first = (path.read_bytes() or b"\0")[0]
    if first % 4 == 0:
        raise KeyError("what")
    if first % 4 == 1:
        raise ValueError("something is wrong somewhere")
    if first % 4 == 2:
        (path.parent / "half.tmp").write_text("half")
        return None, []
    time.sleep(0.02)
    return None, []


def test_failures_are_noticed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fuzz, "SLOW", 0.01)
    flawed = [whole_files.Seed("media", f"{n}.bin", bytes([n]) * 50, bad) for n in range(4)]
    monkeypatch.setattr(fuzz, "seeds", lambda folder, kinds: flawed)
    arguments = ["--inputs", "40", "--workers", "0", "--json", str(tmp_path / "f.json"), "--keep", str(tmp_path / "kept")]
    assert fuzz.main(arguments) == 1
    report = json.loads((tmp_path / "f.json").read_text())
    results = {failure["result"] for failure in report["failures"]}
    assert results == {"another error", "unclear", "left files behind", "slow"}
    assert len(list((tmp_path / "kept").iterdir())) == len(report["failures"])
    assert "failures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a.bin: is damaged.", True),
        ("/x/y/a.bin, line 3, is not a JSON object.", True),
        ("is damaged.", False),
        ("a.bin: is\ndamaged.", False),
        ("a.bin: is damaged", False),
        ("a.bin: " + "x" * 900 + ".", False),
    ],
)
def test_a_sentence_names_the_file_and_is_short(text: str, good: bool) -> None:
    assert fuzz.is_sentence(text, Path("/x/y/a.bin")) is good
