"""Lip crops straight into shards: the same shards as by way of files, in little room, gone on with after an interruption."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.shards import read_shards
from preprocess import lip_roi, lip_shards
from preprocess.clips import InputError
from preprocess.lip_roi import main, run, run_to_shards
from preprocess.shard_check import check
from preprocess.shards import ShardingError, write_shards
from tests.made_media import talking, tone, write_media
from tests.made_store import s3_server

SIZE = 250_000  # two clips
CLIPS = 7


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips and their landmarks."""
    from tests.lips.test_crop import _points

    folder = tmp_path_factory.mktemp("corpus")
    (folder / "clips").mkdir()
    (folder / "points").mkdir()
    points = _points(10)
    for number in range(CLIPS):
        write_media(folder / "clips" / f"{number}.mp4", talking(0.4), audio=tone(0.4, pitch=300.0 + number))
        (folder / "clips" / f"{number}.txt").write_text(f"text {number}")
        np.save(folder / "points" / f"{number}.npy", points)
    return folder


def options(corpus: Path) -> dict[str, Any]:
    return {"format": "npy", "landmarks": str(corpus / "points"), "workers": 0}


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def media(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".npy", ".wav", ".mp4"))


def test_the_shards_are_those_of_the_files_and_no_files_are_left(corpus: Path, tmp_path: Path) -> None:
    write_shards(run(corpus / "clips", tmp_path / "crops", **options(corpus)), tmp_path / "by files", SIZE, workers=0)
    place = run_to_shards(corpus / "clips", tmp_path / "work", tmp_path / "straight", SIZE, **options(corpus))
    assert len(tars(tmp_path / "straight")) == 4
    assert tars(tmp_path / "straight") == tars(tmp_path / "by files")
    straight, by_files = read_shards(place), read_shards(tmp_path / "by files")
    assert list(straight) == list(by_files)
    assert check(place, decode=True)[1] == []
    assert media(tmp_path / "work") == []
    names = ["audio", "packed.jsonl", "report.jsonl", "report.tsv", "summary.json", "video"]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == names
    (corpus_copy := tmp_path / "copy").mkdir()
    for path in tmp_path.joinpath("straight").iterdir():
        shutil.copy(path, corpus_copy)
    assert run_to_shards(corpus / "clips", tmp_path / "work", tmp_path / "straight", SIZE, **options(corpus)) == place
    assert {path.name: path.read_bytes() for path in corpus_copy.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "straight").iterdir()
    }


def test_an_interrupted_run_goes_on_behind_the_shards_that_it_has_sent(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(corpus / "clips", clips)
    (clips / "bad.mp4").write_text("just words")
    whole = run_to_shards(clips, tmp_path / "work 1", tmp_path / "whole", SIZE, **options(corpus))
    done: list[str] = []
    real = lip_roi.make_crops

    def counted(provider: Any, task: Any) -> Any:
        if len(done) == 6:
            raise KeyboardInterrupt
        done.append(task.utterance.id)
        return real(provider, task)

    arguments = (clips, tmp_path / "work", tmp_path / "place", SIZE)
    monkeypatch.setattr(lip_roi, "make_crops", counted)
    with pytest.raises(KeyboardInterrupt):
        run_to_shards(*arguments, **options(corpus))
    sent = tars(tmp_path / "place")
    assert 0 < len(sent) < 4
    first = set(done)
    assert media(tmp_path / "work") != []
    assert len(media(tmp_path / "work")) <= 8  # two files of each of the clips that wait for their shard
    done.clear()
    assert read_shards(run_to_shards(*arguments, **options(corpus))).utterances == read_shards(whole).utterances
    assert tars(tmp_path / "place") == tars(tmp_path / "whole")
    assert first & set(done) <= {"bad"}  # what was done is not done again; what failed may be
    assert "bad\tfailed" in (tmp_path / "work" / "report.tsv").read_text()
    lost = sorted(sent)[0]
    (tmp_path / "place" / lost).unlink()
    done.clear()
    monkeypatch.setattr(lip_roi, "make_crops", lambda *arguments: done.append(arguments[1].utterance.id) or real(*arguments))
    run_to_shards(*arguments, **options(corpus))
    assert len(done) == CLIPS + 1  # the crops of what was lost are gone, and so they are made again
    assert tars(tmp_path / "place") == tars(tmp_path / "whole")


def test_a_shard_that_cannot_be_sent_ends_the_run_with_a_sentence(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lip_shards, "write_shard", lambda store, job: f"{job.name}: no room")
    with pytest.raises(ShardingError, match=r"^shard-000000.tar: no room$"):
        run_to_shards(corpus / "clips", tmp_path / "work", tmp_path / "place", SIZE, **options(corpus))
    assert len(media(tmp_path / "work")) >= 4  # nothing is taken away that has not arrived


def test_what_cannot_be_packed_is_refused_before_the_work(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (Utterance("a", video="0.mp4"), Utterance("b", transcript="text alone"))
    write_manifest(tmp_path / "in.jsonl", Manifest(corpus / "clips", rows))
    with pytest.raises(InputError, match=r"1 rows of the manifest have no video, such as 'b'; pack them with preprocess.shards"):
        run_to_shards(tmp_path / "in.jsonl", tmp_path / "work", tmp_path / "place", **options(corpus))
    run_to_shards(corpus / "clips" / "0.mp4", tmp_path / "work", tmp_path / "place", **options(corpus))
    with pytest.raises(ShardingError, match="place holds shards of other clips or options; choose another folder or address, or empty it"):
        run_to_shards(corpus / "clips" / "1.mp4", tmp_path / "work", tmp_path / "place", **options(corpus))
    with pytest.raises(SystemExit):
        main([str(corpus), "--out", str(tmp_path), "--shards", str(tmp_path / "s"), "--contact-sheet", "a.png"])
    assert "--contact-sheet needs the crops that --shards takes away" in capsys.readouterr().err


def test_the_command_packs_into_a_bucket(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with s3_server("bucket"):
        arguments = [str(corpus / "clips"), "--out", str(tmp_path), "--shards", "s3://bucket/lips", "--shard-size", str(SIZE)]
        arguments += ["--format", "npy", "--landmarks", str(corpus / "points"), "--workers", "0"]
        assert main(arguments) == 0
        assert "7 of 7 clips written (70 frames), 0 failed: s3://bucket/lips/shards.jsonl" in capsys.readouterr().out
        assert len(read_shards("s3://bucket/lips")) == CLIPS
        os.remove(tmp_path / "packed.jsonl")  # without its journal the place cannot be gone on with, but made again
        assert main(arguments) == 0
        arguments[4] = "s3://none/lips"
        capsys.readouterr()
        assert main(arguments) == 2
        assert "avtlm-lip-roi: s3://none/lips: there is no bucket 'none'" in capsys.readouterr().err
