"""Faults of the machine: full disks, refused rights, killed workers, clocks that jump, odd names. One sentence, nothing half-written."""

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from avtlm.checkpoint import load_weights, save_model
from avtlm.data.manifest import Manifest, Utterance, read_manifest, write_manifest
from avtlm.data.media import MediaError, read_audio, read_clip, write_clip, write_wav
from avtlm.files import write_text
from preprocess import check, lip_roi, noise, shards
from preprocess.corpora import librispeech
from tests.made_corpus import make_corpus
from tests.made_media import noise_frames, talking, tone, write_media
from tests.preprocess.corpora.made_sound import sound, text

UNICODE = "Ünïcode 日本語 🎬 'quotes\" & <tags> %s"
LIMITED = """
    import resource, signal, sys
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk: the write fails, the process goes on
    resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
    {imports}
    sys.exit({call})
"""


def parts(folder: Path) -> list[str]:
    """Files that would pass for whole ones or were left behind; notes of a run that can go on are no such files."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def with_little_room(size: int, imports: str, call: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process none of whose files may grow beyond so many bytes.

    Compiled modules are no files of ours: Python would cut them short without a word, and every later process would stumble over them.
    """
    script = textwrap.dedent(LIMITED).format(size=size, imports=imports, call=call)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    folder = tmp_path / "LibriSpeech" / "dev-clean" / "1" / "2"
    for number in range(3):
        sound(folder / f"1-2-{number:04d}.flac", 1.0)
    text(folder / "1-2.trans.txt", *(f"1-2-{number:04d} WORDS" for number in range(3)))
    return tmp_path / "LibriSpeech"


# Full disks -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 6000])
def test_a_reader_of_a_corpus_that_runs_out_of_room_says_so_and_goes_on_later(speech: Path, tmp_path: Path, size: int) -> None:
    out = tmp_path / "out"
    arguments = ["--root", str(speech), "--out", str(out), "--copy", "--workers", "0"]
    done = with_little_room(size, "from preprocess.corpora import librispeech", f"librispeech.main({arguments})")
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "librispeech: " in done.stderr
    assert [name for name in parts(out) if name != "copied.jsonl"] == []
    assert librispeech.main(arguments) == 0
    assert len(read_manifest(out)) == 3
    assert not [name for name in parts(out) if "partial" in name]


def test_a_check_that_runs_out_of_room_says_so(speech: Path, tmp_path: Path) -> None:
    done = with_little_room(
        200, "from preprocess import check", f"check.main([{str(speech)!r}, '--out', {str(tmp_path / 'out')!r}, '--workers', '0'])"
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("preprocess.check: ")
    assert "Traceback" not in done.stderr
    assert not [name for name in parts(tmp_path / "out") if name != "clips.jsonl"]
    assert check.main([str(speech), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0


WRITERS: dict[str, Callable[[Path], object]] = {
    "manifest.jsonl": lambda path: write_manifest(
        path, Manifest(path.parent, tuple(Utterance(f"{n}", transcript="x" * 100) for n in range(99)))
    ),
    "a.wav": lambda path: write_wav(path, tone(2.0)),
    "a.mp4": lambda path: write_clip(path, noise_frames(50), tone(2.0)),
    "a.txt": lambda path: write_text(path, "x" * 9000),
    "model": lambda path: save_model(path, _model(), {"system": "x"}),
}


def _model() -> object:
    import torch

    return torch.nn.Linear(60, 60)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(name: str, tmp_path: Path) -> None:
    if name == "model":
        import torch

        save_model(tmp_path / name, torch.nn.Linear(2, 2), {"system": "x"})
    else:
        (tmp_path / name).write_text("old")
    before = {path: (tmp_path / path).read_bytes() for path in parts(tmp_path)}
    code = f"from pathlib import Path; from tests.preprocess.test_faults import WRITERS; WRITERS[{name!r}](Path({str(tmp_path / name)!r}))"
    done = with_little_room(4096, code, "0")
    assert done.returncode == 1, done.stderr
    assert {path: (tmp_path / path).read_bytes() for path in parts(tmp_path)} == before


@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_wherever_a_write_fails_the_old_file_stays(place: str, tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    broken = mock.patch.object(Path, "write_text", side_effect=full) if place == "write" else mock.patch.object(os, place, side_effect=full)
    with broken, pytest.raises(OSError, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert parts(tmp_path) == ["a.txt"]


# Rights -----------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A folder that cannot be written to, even by root: a file stands where it would have to be."""
    (tmp_path / "locked").write_text("a file")
    return tmp_path / "locked" / "out"


def test_folders_that_cannot_be_made_are_one_sentence(
    speech: Path, locked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = make_corpus(tmp_path / "made", 2)
    write_media(tmp_path / "clip.mp4", talking(), audio=tone(1.0))
    commands: list[tuple[Callable[[list[str]], int], list[str]]] = [
        (librispeech.main, ["--root", str(speech), "--out", str(locked), "--workers", "0"]),
        (check.main, [str(speech), "--out", str(locked), "--workers", "0"]),
        (shards.main, [str(corpus.clips), "--out", str(locked), "--workers", "0"]),
        (lip_roi.main, [str(tmp_path / "clip.mp4"), "--out", str(locked), "--workers", "0"]),
        (noise.main, ["--musan", str(speech), "--out", str(locked), "--workers", "0"]),
    ]
    for main, arguments in commands:
        assert main(arguments) in (1, 2)
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1, error
        assert str(locked.parent) in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read_are_listed_with_the_reason(speech: Path, tmp_path: Path) -> None:
    (speech / "dev-clean" / "1" / "2" / "1-2-0001.flac").chmod(0)
    reading = librispeech.read(speech, out=tmp_path / "out", copy=True)
    assert list(reading.left_out.values()) == ["cannot be read (Permission denied)"]


def test_a_refused_file_is_listed_and_the_others_are_read(speech: Path) -> None:
    """Root may read everything, so that the refusal is made here."""
    from preprocess.corpora import sound_files

    real = sound_files.measure

    def refused(path: Path) -> tuple[int, int]:
        if path.name == "1-2-0001.flac":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    with mock.patch.object(sound_files, "measure", refused):
        reading = librispeech.read(speech)
    assert [row.id for row in reading.rows] == ["1-2-0000", "1-2-0002"]
    assert list(reading.left_out.values()) == ["cannot be read (Permission denied)"]


# Files that end early ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_sound_that_ends_early_is_never_shortened_without_a_word(suffix: str, share: float, tmp_path: Path) -> None:
    from avtlm.data.sound import read_track

    path = sound(tmp_path / f"a{suffix}", 4.0)
    whole = len(read_audio(path))
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    try:
        wave, notes = read_track(path)
    except MediaError:
        return
    assert wave is not None
    if suffix in (".wav", ".flac"):  # formats that say how long they are
        assert notes or len(wave) >= whole - 1600
    else:
        assert len(wave) < whole  # a stream of packets promises nothing: only a manifest can tell


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mpg"])
def test_pictures_that_are_missing_are_an_error_or_a_warning(name: str, share: float, tmp_path: Path) -> None:
    codecs = {"a.avi": "mpeg4", "a.mpg": "mpeg1video"}
    path = write_media(
        tmp_path / name,
        noise_frames(60),
        audio=tone(2.4),
        codec=codecs.get(name, "libx264"),
        audio_codec="mp2" if name == "a.mpg" else "aac",
        fast_start=name == "a.mp4",
    )
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    try:
        clip = read_clip(path)
    except MediaError:
        return
    assert clip.frames is not None
    assert len(clip.frames) >= 59 or clip.info["warnings"]


# Clocks -----------------------------------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_neither_loses_nor_repeats_work(speech: Path, tmp_path: Path) -> None:
    arguments = {"out": tmp_path / "out", "copy": True}
    first = librispeech.read(speech, **arguments)
    for when in (0, 2**31, 4_000_000_000):
        for path in (tmp_path / "out" / "audio").iterdir():
            os.utime(path, (when, when))
        assert librispeech.read(speech, **arguments) == first
    with mock.patch("time.time", side_effect=[1e9, -5.0, 1e12] * 100):
        assert librispeech.read(speech, **arguments) == first


def test_tasks_time_out_by_a_clock_that_cannot_be_set() -> None:
    from preprocess.pool import run_tasks

    with mock.patch("time.time", side_effect=[0.0, 1e12] * 100):
        assert sorted(run_tasks(_double, [1, 2, 3], _nothing, workers=1, timeout=60)) == [(0, 2), (1, 4), (2, 6)]


def _double(_: None, number: int) -> int:
    return 2 * number


def _nothing() -> None:
    pass


# Names ------------------------------------------------------------------------------------------------------------------------------------


def test_names_of_every_kind_go_through_reader_check_and_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = tmp_path.joinpath(*[f"{UNICODE} {level}".replace('"', "") + "x" * 100 for level in range(6)])
    folder = deep / "LibriSpeech" / "dev-clean" / "é" / "ß"
    names = ["é-ß-0000", f"é-ß-{'長' * 70}"]
    for number, name in enumerate(names):
        text(folder / "made")  # and the folder; libsndfile itself takes no such path
        sound(tmp_path / f"{number}.flac", 0.5).rename(folder / f"{name}.flac")
    text(folder / "é-ß.trans.txt", *(f"{name} GRÜẞE" for name in names))
    out = deep / "out"
    assert librispeech.main(["--root", str(deep / "LibriSpeech"), "--out", str(out), "--workers", "0", "--copy"]) == 0
    manifest = read_manifest(out)
    assert sorted(row.id for row in manifest) == sorted(names)
    assert all(len(read_audio(manifest.path(row.audio or ""))) == 8000 for row in manifest)
    assert check.main([str(out), "--workers", "1"]) == 0
    assert shards.main([str(out), "--out", str(deep / "shards"), "--workers", "0"]) == 0
    assert shards.main([str(deep / "shards"), "--check", "--decode"]) == 0
    capsys.readouterr()


def test_a_name_that_is_no_unicode_is_left_out_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from preprocess.corpora import fsdd

    sound(tmp_path / "7_theo_9.wav", rate=8000)
    bad = Path(os.fsdecode(bytes(tmp_path) + b"/7_th\xe9o_9.wav"))
    try:
        (tmp_path / "7_theo_9.wav").rename(bad)
    except OSError:
        pytest.skip("this file system knows UTF-8 names only")
    sound(tmp_path / "8_theo_9.wav", rate=8000)
    assert fsdd.main(["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    assert len(read_manifest(tmp_path / "out")) == 1
    assert "7_th\\udce9o_9.wav" in (tmp_path / "out" / "left_out.tsv").read_text()
    capsys.readouterr()


def test_a_path_that_is_too_long_is_one_sentence(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = str(tmp_path / ("x" * 300) / "out")
    assert librispeech.main(["--root", str(speech), "--out", long, "--workers", "0"]) == 1
    assert check.main([str(speech), "--out", long, "--workers", "0"]) == 2
    assert check.main([long, "--workers", "0"]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 3
    assert all("Traceback" not in error for error in errors)


# Killed runs ------------------------------------------------------------------------------------------------------------------------------


def test_a_run_killed_between_any_two_copies_goes_on(speech: Path, tmp_path: Path) -> None:
    """os._exit stands in for the kill, before every rename in turn."""
    script = """
        import os, sys
        from preprocess.corpora import librispeech
        left, real = int(sys.argv[1]), os.replace
        def counted(*arguments):
            global left
            left -= 1
            if left == 0:
                os._exit(9)
            return real(*arguments)
        os.replace = counted
        sys.exit(librispeech.main(["--root", sys.argv[2], "--out", sys.argv[3], "--copy", "--workers", "0"]))
    """
    whole = tmp_path / "whole"
    assert librispeech.main(["--root", str(speech), "--out", str(whole), "--copy", "--workers", "0"]) == 0
    for point in (1, 3, 5):
        out = tmp_path / f"killed{point}"
        arguments = [sys.executable, "-c", textwrap.dedent(script), str(point), str(speech), str(out)]
        assert subprocess.run(arguments, check=False, capture_output=True).returncode == 9
        assert not (out / "manifest.jsonl").exists()
        assert librispeech.main(["--root", str(speech), "--out", str(out), "--copy", "--workers", "0"]) == 0
        assert (out / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()
        assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in parts(whole) if name.endswith(".flac"))


def test_weights_that_are_cut_at_any_place_are_refused(tmp_path: Path) -> None:
    import torch

    save_model(tmp_path / "model", torch.nn.Linear(3, 3), {"system": "x"})
    path = tmp_path / "model" / "weights.safetensors"
    content = path.read_bytes()
    for size in range(0, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError) as caught:
            load_weights(tmp_path / "model")
        assert "\n" not in str(caught.value)
