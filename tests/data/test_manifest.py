"""Manifests come back as they were written, in both layouts, and every mistake names the file and the line."""

import json
from pathlib import Path

import pytest

from avtlm.data.manifest import Manifest, ManifestError, Utterance, read_manifest, read_tsv, validate, write_manifest, write_tsv

ROWS = (
    Utterance("s1/a", "v/a.mp4", "a/a.wav", 50, 32000, transcript="bin blue", speaker="s1", split="train", phones="b:0:0.1 ih:0.1:0.2"),
    Utterance("s2/ü", None, "a/b.flac", 0, 16000, transcript="now", speaker="s2", split="test", extra={"snr": 5, "units": "1 2"}),
    Utterance("t1", transcript="only text", extra={"units": "3"}),
)


def test_a_manifest_comes_back_equal(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, ROWS)
    write_manifest(tmp_path / "manifest.jsonl", manifest)
    assert read_manifest(tmp_path / "manifest.jsonl") == manifest
    assert read_manifest(tmp_path) == manifest


def test_fields_at_their_default_are_not_written(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", Manifest(tmp_path, ROWS[2:]))
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"id": "t1", "transcript": "only text", "extra": {"units": "3"}}


@pytest.mark.parametrize("place", ["lists/m.jsonl", "m.jsonl", "corpus/lists/m.jsonl", "../elsewhere/m.jsonl"])
def test_the_root_is_kept_wherever_the_manifest_lies(tmp_path: Path, place: str) -> None:
    root = tmp_path / "here" / "corpus"
    root.mkdir(parents=True)
    write_manifest(tmp_path / "here" / place, Manifest(root, ROWS))
    assert read_manifest(tmp_path / "here" / place).root.resolve() == root


def test_the_first_line_may_name_the_root(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"root": "media"}\n\n{"id": "a", "video": "a.mp4", "video_frames": 3}\n')
    manifest = read_manifest(tmp_path / "m.jsonl")
    assert manifest.path(manifest[0].video) == tmp_path / "media" / "a.mp4"
    assert manifest.path(manifest[0].audio) is None
    assert manifest.lines == (3,)


def test_absolute_paths_stay_absolute(tmp_path: Path) -> None:
    assert Manifest(tmp_path, ()).path("/media/a.mp4") == Path("/media/a.mp4")


def test_split_and_filter_keep_the_line_numbers(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.jsonl", Manifest(tmp_path, ROWS))
    test = read_manifest(tmp_path).split("test")
    assert [utterance.id for utterance in test] == ["s2/ü"]
    assert test.lines == (2,)
    assert len(test.filter(lambda utterance: False)) == 0


def test_duration_comes_from_the_sound_or_else_from_the_picture() -> None:
    assert Utterance("a", video="v", audio="a", video_frames=50, audio_samples=8000, sample_rate=8000).duration == 1.0
    assert Utterance("a", video="v", video_frames=50).duration == 2.0
    assert Utterance("a", transcript="x").duration == 0.0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not a JSON object"),
        ("[1]", "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
        ('{"video": "a.mp4"}', "has no 'id'"),
        ('{"id": ""}', "has id = ''; expected text"),
        ('{"id": 7}', "has id = 7; expected text"),
        ('{"id": "b", "vidoe": "x"}', "unknown field 'vidoe' (did you mean 'video'?)"),
        ('{"id": "b", "video": 3}', "has video = 3; expected text"),
        ('{"id": "b", "video_frames": "3"}', "has video_frames = '3'; expected a whole number"),
        ('{"id": "b", "audio_samples": -1}', "has audio_samples = -1; expected a whole number"),
        ('{"id": "b", "extra": []}', "has extra = []; expected an object"),
        ('{"id": "a"}', "repeats the id 'a' of line 1"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": "a"}\n' + line + "\n")
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert f"{path}, line 2, " in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("head", ["", '{"root": "."}\n', '{"root": %s}\n' % (["x" * 5000])], ids=["no root", "root", "long root"])
@pytest.mark.parametrize(
    "row", [{"x" * 5000: 1}, {"a\nb": 1}, {"id": "y" * 5000}, {"id": ["z" * 5000]}], ids=["field", "lines", "id", "value"]
)
def test_what_a_damaged_line_holds_is_cut_to_a_sentence(tmp_path: Path, head: str, row: dict[str, object]) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(head.replace("'", '"') + 2 * (json.dumps(row) + "\n"))
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert len(str(caught.value).removeprefix(str(path))) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["m.jsonl", "m.tsv"])
def test_missing_empty_and_binary_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ManifestError, match="does not exist"):
        read_manifest(path)
    path.write_bytes(b"")
    with pytest.raises(ManifestError, match="lists no utterances"):
        read_manifest(path)
    path.write_bytes(b"\x00\xff\xfe\x80")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(path)


def test_an_empty_folder_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.jsonl does not exist"):
        read_manifest(tmp_path)


def test_the_layout_of_av_hubert_is_read(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("/data\nspk/1\t/data/v/1.mp4\t/data/a/1.wav\t75\t48000\nspk/2\tv/2.mp4\tNone\t50\t0\n")
    (tmp_path / "test.wrd").write_text("hello there\nyes\n")
    (tmp_path / "test.km").write_text("5 5 6\n1\n")
    manifest = read_manifest(tmp_path / "test.tsv")
    first, second = manifest
    assert first == Utterance(
        "spk/1", "/data/v/1.mp4", "/data/a/1.wav", 75, 48000, transcript="hello there", split="test", extra={"units": "5 5 6"}
    )
    assert (second.audio, second.transcript, manifest.path(second.video)) == (None, "yes", Path("/data/v/2.mp4"))
    assert manifest.lines == (2, 3)


def test_the_two_columns_of_hubert_are_read(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("/libri\n84/1.flac\t16000\n84/2.flac\t8000\n")
    assert [(u.id, u.audio, u.duration) for u in read_tsv(tmp_path / "train.tsv")] == [
        ("84/1", "84/1.flac", 1.0),
        ("84/2", "84/2.flac", 0.5),
    ]


def test_the_layout_of_av_hubert_comes_back_equal(tmp_path: Path) -> None:
    rows = tuple(
        Utterance(f"u{i}", f"{i}.mp4", None if i else "0.wav", 5, 0 if i else 3200, transcript="a b", split="valid") for i in range(3)
    )
    write_tsv(tmp_path / "valid.tsv", Manifest(tmp_path, rows))
    assert not (tmp_path / "valid.km").exists()
    assert read_tsv(tmp_path / "valid.tsv") == Manifest(tmp_path, rows)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("/\na\tb\tc\t1\n", "line 2, has 4 columns"),
        ("/\na\tb\tc\t1\t2\na\tb\tc\tx\t2\n", "line 3, has 'x' and '2' where the lengths should stand"),
    ],
)
def test_a_bad_tsv_line_is_named(tmp_path: Path, body: str, reason: str) -> None:
    (tmp_path / "x.tsv").write_text(body)
    with pytest.raises(ManifestError, match=reason):
        read_tsv(tmp_path / "x.tsv")


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("/\na\tb\tc\t1\t640\n")
    (tmp_path / "x.wrd").write_text("one\ntwo\n")
    with pytest.raises(ManifestError, match=r"x\.wrd has 2 lines but .*x\.tsv has 1 utterances"):
        read_tsv(tmp_path / "x.tsv")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "has neither video nor audio nor text"),
        ({"video": "here.mp4"}, "has a video but video_frames is 0"),
        ({"audio": "here.mp4"}, "has audio but audio_samples is 0"),
        ({"video": "here.mp4", "audio": "here.mp4", "video_frames": 25, "audio_samples": 24000}, "has 1.00 s of video but 1.50 s of audio"),
        ({"video": "gone.mp4", "video_frames": 5}, "gone.mp4, which does not exist"),
        ({"transcript": " ", "video": "here.mp4", "video_frames": 5}, "has an empty transcript"),
        ({"transcript": "a", "split": "dev"}, "is in the split 'dev'; expected train, valid or test"),
        ({"transcript": "a", "sample_rate": 0}, "has the sample rate 0"),
    ],
)
def test_validation_names_file_line_and_utterance(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    (tmp_path / "here.mp4").touch()
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"id": "fine", "transcript": "x"}\n' + json.dumps({"id": "bad", **row}) + "\n")
    problems = validate(read_manifest(path))
    assert len(problems) == 1
    assert str(problems[0]).startswith(f"{path}, line 2: utterance 'bad' ")
    assert reason in str(problems[0])
