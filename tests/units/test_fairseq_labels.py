"""Labels in fairseq's layout: what is written is what fairseq reads, and comes back unchanged."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avtlm.data.manifest import Manifest, Utterance, read_tsv
from avtlm.units.fairseq_labels import read_dictionary, read_km, write_km

ROWS = (
    Utterance("one", audio="a/one.wav", audio_samples=3200, split="train"),
    Utterance("dev", audio="dev.wav", audio_samples=1600, split="valid"),
    Utterance("two", audio="a/two.wav", audio_samples=1600, split="train"),
)
LABELS = {"one": np.array([0, 3, 3, 1, 2], np.int32), "two": np.array([4, 0, 0], np.int32), "dev": np.array([2, 2, 1], np.int32)}


def test_every_split_gets_its_lines_in_the_order_of_its_list_and_a_dictionary_from_0(tmp_path: Path) -> None:
    files = write_km(tmp_path / "labels", Manifest(tmp_path, ROWS), LABELS, 6)
    assert [path.name for path in files] == ["train.km", "valid.km"]
    assert files[0].read_text() == "0 3 3 1 2\n4 0 0\n"
    assert files[1].read_text() == "2 2 1\n"
    assert (tmp_path / "labels" / "dict.km.txt").read_text() == "0 1\n1 1\n2 1\n3 1\n4 1\n5 1\n"
    listed = (tmp_path / "labels" / "train.tsv").read_text().splitlines()
    assert listed[0] == str(tmp_path)
    assert [line.split("\t")[2] for line in listed[1:]] == ["a/one.wav", "a/two.wav"]
    assert [row.extra["units"] for row in read_tsv(tmp_path / "labels" / "train.tsv")] == ["0 3 3 1 2", "4 0 0"]


@given(st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_labels_come_back_unchanged(tmp_path: Path, lines: list[list[int]]) -> None:
    rows = Manifest(tmp_path, tuple(Utterance(f"u{i}", audio=f"{i}.wav", audio_samples=400) for i in range(len(lines))))
    labels = {f"u{i}": np.array(line, np.int32) for i, line in enumerate(lines)}
    (path,) = write_km(tmp_path, rows, labels, 9, name="corpus")
    assert path.name == "corpus.km"
    for read in (read_km(path), read_km(path, rows)):
        assert list(read) == list(labels)
        assert all(np.array_equal(read[name], labels[name]) for name in labels)


def test_a_class_is_the_line_of_the_dictionary(tmp_path: Path) -> None:
    (tmp_path / "train.km").write_text("7 3 7\n")
    (tmp_path / "dict.km.txt").write_text("3 10000\n7 10000\n")
    rows = Manifest(tmp_path, ROWS[:1])
    assert read_km(tmp_path / "train.km", rows)["one"].tolist() == [1, 0, 1]
    (tmp_path / "other.txt").write_text("7 1\n3 1\n")
    assert read_km(tmp_path / "train.km", rows, tmp_path / "other.txt")["one"].tolist() == [0, 1, 0]
    (tmp_path / "dict.km.txt").unlink()
    assert read_km(tmp_path / "train.km", rows)["one"].tolist() == [7, 3, 7]


def test_a_dictionary_that_leaves_out_the_first_cluster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.km").write_text("1 2\n1 0\n")
    (tmp_path / "dict.km.txt").write_text("1 10000\n2 10000\n")
    with pytest.raises(ValueError, match=r"train\.km, line 2: unit '0' is not in .*dict\.km\.txt; write the labels .* from 0"):
        read_km(tmp_path / "train.km", Manifest(tmp_path, ROWS[::2]))


@pytest.mark.parametrize(
    ("text", "reason"), [("1 2\n", "has 1 lines but .* has 2 utterances"), ("1 2\n3 x\n", r"line 2: unit 'x' is not a n")]
)
def test_a_damaged_km_file_is_named_with_its_line(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "train.km").write_text(text)
    with pytest.raises(ValueError, match=rf"train\.km.*{reason}"):
        read_km(tmp_path / "train.km", Manifest(tmp_path, ROWS[::2]))


@pytest.mark.parametrize(
    ("text", "reason"), [("0 1\n1\n", "line 2: expected a unit and a count"), ("0 1\n0 1\n", "line 2: unit 0 is there")]
)
def test_a_damaged_dictionary_is_named_with_its_line(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "dict.km.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"dict\.km\.txt, {reason}"):
        read_dictionary(tmp_path / "dict.km.txt")


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, ROWS)
    with pytest.raises(ValueError, match="utterance 'two' has unit 4, outside of the 4"):
        write_km(tmp_path, manifest, LABELS, 4)
    with pytest.raises(ValueError, match="no labels for utterance 'dev'"):
        write_km(tmp_path, manifest, {name: LABELS[name] for name in ("one", "two")}, 6)
    assert not list(tmp_path.iterdir())
