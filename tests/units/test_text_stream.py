"""A text file to labels: ids and lines agree, a stopped call goes on to the same bytes, bad lines are named."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import Manifest, Utterance, read_manifest, write_manifest
from avtlm.units import text_stream
from avtlm.units.fairseq_labels import read_km
from avtlm.units.generators import Counts, TextToUnits, open_generator
from avtlm.units.labels import read_labels
from avtlm.units.text_stream import check_lines, read_lines, text2units
from tests.units.made_text2unit import lines, save_fast


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stream, "WINDOW", 4)


class Lengths:
    """A stand-in: a unit for each word, its length; ``stop`` words end the process, ``skip`` leaves a line out."""

    symbols = [f"u{number}" for number in range(20)]  # noqa: RUF012

    def __init__(self, identity: str = "lengths", armed: bool = False) -> None:
        self.identity, self.armed, self.counts, self.seen = identity, armed, Counts(), 0

    def __call__(self, texts: Sequence[str], ids: Sequence[str]) -> list[np.ndarray | None]:
        self.seen += len(texts)
        if self.armed and any("stop" in text for text in texts):
            raise KeyboardInterrupt
        self.counts.missing.total += sum(len(text.split()) for text in texts)
        return [None if text == "skip" else np.array([len(word) for word in text.split()], np.int32) for text in texts]


def written(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def as_generator(made: Lengths) -> TextToUnits:
    return made


def test_lines_get_the_ids_of_their_manifest(tmp_path: Path) -> None:
    text = written(tmp_path / "some.txt", ["a bb", "ccc", "skip", "a  a"])
    done = text2units(text, tmp_path / "out" / "some.units", as_generator(Lengths()))
    labels = read_labels(done.out)
    assert {name: row.tolist() for name, row in labels.items()} == {"some-1": [1, 2], "some-2": [3], "some-4": [1, 1]}
    assert set(labels) <= {row.id for row in read_manifest(text)}
    assert (done.lines, done.kept, done.units, done.counts.missing.total) == (4, 3, 5, 6)
    assert sorted(path.name for path in done.out.parent.iterdir()) == ["some.dict.txt", "some.units"]


def test_rows_of_a_manifest_keep_their_ids(tmp_path: Path) -> None:
    rows = tuple(Utterance(f"row{number}", transcript="a bb" if number else "ccc") for number in range(6))
    write_manifest(tmp_path / "in" / "manifest.jsonl", Manifest(tmp_path, rows))
    done = text2units(tmp_path / "in" / "manifest.jsonl", tmp_path / "m.units", as_generator(Lengths()))
    assert (done.lines, list(read_labels(done.out))) == (6, [row.id for row in rows])
    assert read_labels(done.out)["row0"].tolist() == [3]


def test_fairseqs_lines_are_named_and_come_back(tmp_path: Path) -> None:
    text = written(tmp_path / "some.txt", ["a bb", "ccc"])
    done = text2units(text, tmp_path / "some.phn", as_generator(Lengths()))
    assert done.out.read_text() == "u1 u2\nu3\n"
    assert (tmp_path / "dict.phn.txt").read_text().splitlines()[:2] == ["u0 1", "u1 1"]
    labels = read_km(done.out, read_manifest(text))
    assert {name: row.tolist() for name, row in labels.items()} == {"some-1": [1, 2], "some-2": [3]}


def test_a_phone_that_the_dictionary_lacks_is_named_when_it_is_read(tmp_path: Path) -> None:
    text = written(tmp_path / "some.txt", ["a"])
    written(tmp_path / "some.phn", ["AH"])
    written(tmp_path / "dict.phn.txt", ["B 1"])
    with pytest.raises(ValueError, match=r"some\.phn, line 1: unit 'AH' is not in .*dict\.phn\.txt; name a dictionary that has it"):
        read_km(tmp_path / "some.phn", read_manifest(text))


def test_runs_of_a_unit_are_merged_if_asked_for(tmp_path: Path) -> None:
    text = written(tmp_path / "some.txt", ["aa bb c dd"])
    done = text2units(text, tmp_path / "some.units", as_generator(Lengths()), reduced=True)
    assert read_labels(done.out)["some-1"].tolist() == [2, 1, 2]


@pytest.mark.parametrize("name", ["out.units", "out.km"])
def test_a_stopped_call_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    texts = [f"{'a' * (1 + number % 5)} {'stop' if number == 9 else 'go'}" for number in range(15)]
    text = written(tmp_path / "some.txt", texts)
    whole = text2units(text, tmp_path / "whole" / name, as_generator(Lengths()))
    with pytest.raises(KeyboardInterrupt):
        text2units(text, tmp_path / "again" / name, as_generator(Lengths(armed=True)))
    assert not (tmp_path / "again" / name).exists()
    (partial,) = (path for path in (tmp_path / "again").iterdir() if path.suffix == ".partial")
    with open(partial, "ab") as handle:
        handle.write(b"half a li")  # what was being written when it was killed
    second = Lengths()
    done = text2units(text, tmp_path / "again" / name, as_generator(second))
    assert (second.seen, done.before) == (15 - 8, 8)
    assert done.out.read_bytes() == whole.out.read_bytes()
    assert (done.units, done.counts.missing.total) == (whole.units, whole.counts.missing.total)
    assert [path for path in (tmp_path / "again").iterdir() if path.name.startswith(".")] == []


def test_what_another_generator_or_text_left_is_not_gone_on_with(tmp_path: Path) -> None:
    text = written(tmp_path / "some.txt", ["a go"] * 6 + ["stop a"])
    with pytest.raises(KeyboardInterrupt):
        text2units(text, tmp_path / "out.units", as_generator(Lengths(armed=True)))
    other = Lengths("other")
    assert text2units(text, tmp_path / "out.units", as_generator(other)).before == 0
    assert other.seen == 7


def test_nothing_is_left_out_of_a_file_without_ids(tmp_path: Path) -> None:
    text = written(tmp_path / "some.txt", ["a", "skip"])
    with pytest.raises(ValueError, match=r"some\.txt, line 2: cannot be said in units .* write NAME\.units"):
        text2units(text, tmp_path / "out.km", as_generator(Lengths()))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a b\n\nc\n \n", "line 2: is empty, as 2 of 4 lines are; remove empty lines"),
        (b"", "has no lines of text"),
        (b"a\n\xff\xfe\n", "line 2: is not UTF-8 text"),
    ],
)
def test_bad_lines_of_a_text_are_named(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"some\.txt.*{reason}"):
        text2units(tmp_path / "some.txt", tmp_path / "out.units", as_generator(Lengths()))
    assert not (tmp_path / "out.units").exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [("{", "is not a JSON object"), ('{"id": "x"}', "utterance 'x' has no transcript"), ('{"idd": "x"}', "unknown field 'idd'")],
)
def test_bad_rows_of_a_manifest_are_named(line: str, reason: str, tmp_path: Path) -> None:
    text = written(tmp_path / "m.jsonl", ['{"root": "."}', json.dumps({"id": "a", "transcript": "a b"}), line])
    assert check_lines(text) == 2
    with pytest.raises(ValueError, match=rf"m\.jsonl, line 3.*{reason}"):
        list(read_lines(text))


def test_a_model_writes_what_its_generator_says(tmp_path: Path) -> None:
    folder = save_fast(tmp_path / "model")
    text = written(tmp_path / "some.txt", lines(11))
    done = text2units(text, tmp_path / "some.units", open_generator(folder))
    ids = [f"some-{number}" for number in range(1, 12)]
    wanted = open_generator(folder)(lines(11), ids)
    labels = read_labels(done.out)
    assert all(row is not None and labels[name].tolist() == row.tolist() for name, row in zip(ids, wanted, strict=True))
