"""`avtlm info` on files and folders of every kind, and `avtlm doctor`."""

import json
from pathlib import Path

import pytest

from avtlm import __version__, cli
from tests import made_media
from tests.test_cli import failure


def test_info_describes_a_media_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", made_media.talking(0.4), audio=made_media.tone(0.4, 44100), rate=44100, channels=2)
    assert cli.main(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "media"
    assert (found["video"]["codec"], found["video"]["fps"]) == ("h264", 25.0)
    assert found["audio"] == [{"codec": "aac", "sample_rate": 44100, "channels": 2}]


def test_info_describes_a_manifest(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (corpus, corpus.parent):
        assert cli.main(["info", str(path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["kind"], found["utterances"], found["number of problems"]) == ("manifest", 6, 0)
        assert found["splits"]["test"]["words"] == 15


def test_info_describes_a_model(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", model]) == 0
    text = capsys.readouterr().out
    assert "vatlm" in text
    assert "weights.safetensors" in text


@pytest.mark.parametrize("kind", ["missing", "text", "empty folder", "broken manifest"])
def test_info_says_what_is_wrong(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = {
        "missing": tmp_path / "none",
        "text": tmp_path / "a.mp4",
        "empty folder": tmp_path / "empty",
        "broken manifest": tmp_path / "m.jsonl",
    }[kind]
    (tmp_path / "a.mp4").write_text("this is a text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.jsonl").write_text("{}\n")
    assert str(path) in failure(capsys, "info", str(path))


def test_doctor_reports_versions_and_backends(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["avtlm"] == __version__
    assert found["attention"]["sdpa on cpu"].startswith("works")
    assert found["attention"]["reference on cpu"].startswith("works")
    assert "h264" in found["codecs"]["decodes"]
