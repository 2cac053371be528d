"""The reader of GRID, on generated trees in its layouts."""

import io
import tarfile
from pathlib import Path

import pytest

from avtlm.data.manifest import read_manifest
from preprocess.corpora.grid import HELD_OUT, main, read, read_alignment, transcript_of

CODES = ["bbaf2n", "lgbozp", "pric3s", "swwx9a"]
SENTENCES = ["bin blue at f two now", "lay green by o zero please", "place red in c three soon", "set white with x nine again"]


def aligned(sentence: str) -> str:
    words = ["sil", *sentence.split(), "sp", "sil"]
    return "".join(f"{5000 * i} {5000 * (i + 1)} {word}\n" for i, word in enumerate(words))


def make(path: Path, content: str = "video") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def flat(root: Path, talkers: tuple[str, ...] = ("s1", "s3")) -> Path:
    """Clips with their alignments beside them."""
    for talker in talkers:
        for code, sentence in zip(CODES, SENTENCES, strict=True):
            make(root / talker / f"{code}.mpg")
            make(root / talker / f"{code}.align", aligned(sentence))
    return root


def test_names_are_sentences() -> None:
    assert [transcript_of(code) for code in CODES] == SENTENCES
    for wrong in ("bbaf2", "bbaf2nn", "xbaf2n", "bbaw2n", "bbaf0n", "talking"):
        assert transcript_of(wrong) is None


def test_alignments_are_sorted_and_without_silences() -> None:
    lines = ["0 23750 sil", "29500 34000 blue", "", "23750 29500 bin", "34000 35000 sp"]
    assert read_alignment(lines) == [("bin", 0.95, 1.18), ("blue", 1.18, 1.36)]
    with pytest.raises(ValueError, match="line 2 is 'bin', not 'start end word'"):
        read_alignment(["0 5 sil", "bin"])


@pytest.mark.parametrize("place", ["{talker}/align/{code}.align", "alignments/{talker}/{code}.align", "archive"])
def test_alignments_are_found_wherever_copies_keep_them(tmp_path: Path, place: str) -> None:
    for code, sentence in zip(CODES, SENTENCES, strict=True):
        make(tmp_path / "s3" / "video" / "mpg_vcd" / f"{code}.mpg")
        if place != "archive":
            make(tmp_path / place.format(talker="s3", code=code), aligned(sentence))
    if place == "archive":
        with tarfile.open(tmp_path / "alignments_all.tar.gz", "w:gz") as archive:
            for code, sentence in zip(CODES, SENTENCES, strict=True):
                content = aligned(sentence).encode()
                member = tarfile.TarInfo(f"alignments/s3/{code}.align")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    reading = read(tmp_path)
    assert [row.transcript for row in reading.rows] == SENTENCES
    assert reading.rows[0].extra["words"][0] == ["bin", 0.2, 0.4]
    assert reading.rows[0].id == "s3_bbaf2n"
    assert not reading.left_out


def test_without_alignment_the_name_is_the_transcript(tmp_path: Path) -> None:
    make(tmp_path / "s3" / "bbaf2n.mpg")
    reading = read(tmp_path)
    assert reading.rows[0].transcript == SENTENCES[0]
    assert reading.rows[0].extra == {}
    assert any("1 clips have no alignment" in remark for remark in reading.remarks)


def test_the_larger_of_two_pictures_is_taken(tmp_path: Path) -> None:
    for size in ("mpg_6000", "mpg_vcd"):
        make(tmp_path / "s3" / "video" / size / "bbaf2n.mpg")
    reading = read(tmp_path)
    assert [row.video for row in reading.rows] == ["s3/video/mpg_6000/bbaf2n.mpg"]
    assert any("two sizes" in remark for remark in reading.remarks)


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat(tmp_path)
    make(tmp_path / "s1" / "holiday.mpg")
    make(tmp_path / "elsewhere" / "bbaf2n.mpg")
    make(tmp_path / "s3" / "bbaf2n.align", aligned(SENTENCES[1]))
    make(tmp_path / "s3" / "pric3s.align", "0 1\n")
    reading = read(tmp_path)
    reasons = {Path(path).name if "s1" in path or "s3" in path else path: reason for path, reason in reading.left_out.items()}
    assert len(reasons) == 4
    assert "no sentence of GRID" in reasons["holiday.mpg"]
    assert "alignment" in reasons["bbaf2n.mpg"]
    assert "'lay green by o zero please'" in reasons["bbaf2n.mpg"]
    assert "line 1 is '0 1'" in reasons["pric3s.mpg"]
    assert len(reading.rows) == 6
    assert main(["--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "left out" in capsys.readouterr().err
    assert len((tmp_path / "out" / "left_out.tsv").read_text().splitlines()) == 4


def test_missing_talkers_and_clips_are_counted_against_the_published_numbers(tmp_path: Path) -> None:
    remarks = " ".join(read(flat(tmp_path)).remarks)
    assert "31 of 33 talkers with video are missing" in remarks
    assert "s21" not in remarks
    assert "s1 4, s3 4" in remarks


def full(root: Path, talkers: tuple[str, ...], count: int = 200) -> Path:
    """Many clips, named in the order of the grammar."""
    for talker in talkers:
        (root / talker).mkdir(parents=True)
        codes = [c + o + "a" + letter + digit + "n" for c in "blps" for o in "bgrw" for letter in "abc" for digit in "z1234"][:count]
        for code in codes:
            (root / talker / f"{code}.mpg").touch()
    return root


def test_unseen_talkers_are_the_test(tmp_path: Path) -> None:
    rows = read(full(tmp_path, ("s1", "s2", "s3")), "unseen").rows
    assert {row.speaker for row in rows if row.split == "test"} == {"s1", "s2"}
    assert {row.split for row in rows if row.speaker == "s3"} == {"train", "valid"}


def test_overlapped_talkers_give_a_quarter_of_their_sentences_each(tmp_path: Path) -> None:
    rows = read(full(tmp_path, ("s2", "s3"))).rows
    for speaker in ("s2", "s3"):
        splits = [row.split for row in rows if row.speaker == speaker]
        assert splits.count("test") == 51
        assert splits.count("valid") == round(0.05 * 149)
    assert [row.id for row in read(tmp_path).rows if row.split == "test"] == [row.id for row in rows if row.split == "test"]


def test_one_talker_holds_out_fixed_sentences_and_all_other_talkers(tmp_path: Path) -> None:
    full(tmp_path, ("s1", "s3", "s4"))
    for code in HELD_OUT.split()[:30]:
        make(tmp_path / "s1" / f"{code}.mpg")
    rows = read(tmp_path, "one_talker").rows
    assert {row.split for row in rows if row.speaker != "s1"} == {"test"}
    fixed = {f"s1_{code}" for code in HELD_OUT.split()}
    assert {row.id for row in rows if row.speaker == "s1" and row.split == "test"} == {row.id for row in rows if row.id in fixed}
    other = [row for row in read(tmp_path, "one_talker", "s3").rows if row.speaker == "s3"]
    assert [sum(row.split == name for row in other) for name in ("test", "valid", "train")] == [100, 40, 60]
    assert len(set(HELD_OUT.split())) == 100
    assert all(transcript_of(code) for code in HELD_OUT.split())


def test_the_manifest_is_what_the_lip_pipeline_reads(tmp_path: Path) -> None:
    assert main(["--root", str(flat(tmp_path / "grid")), "--out", str(tmp_path / "out"), "--protocol", "one_talker", "--talker", "s3"]) == 0
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert all(manifest.path(row.video).is_file() for row in manifest if row.video)
    assert len(manifest) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--protocol", "one_talker", "--talker", "s9"], "no clips of talker s9, but of s1, s3"), ([], "holds no clips")],
)
def test_wrong_folders_and_talkers_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    root = flat(tmp_path / "grid") if arguments else tmp_path
    assert main(["--root", str(root), "--out", str(tmp_path / "out"), *arguments]) == 1
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="protocol: 'mine' is unknown"):
        read(root, "mine")
