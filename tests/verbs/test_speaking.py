"""`avtlm synthesize`, `convert-voice` and `enhance`: files that are whole or not there, one sentence for each thing that is wrong."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from avtlm import cli
from avtlm.data.media import write_wav
from avtlm.speaking import synthesize
from tests import made_media
from tests.made_model import save_tiny_recognizer
from tests.made_voice import save_vocoder, save_voice, save_writer, voice
from tests.test_cli import failure


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_writer(tmp_path_factory.mktemp("writers") / "model"))


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_voice(tmp_path_factory.mktemp("voices") / "alice.npy"))


@pytest.fixture
def clip(tmp_path: Path) -> str:
    write_wav(tmp_path / "clip.wav", made_media.chirps(0.5))
    return str(tmp_path / "clip.wav")


def test_a_text_is_said_and_can_be_transcribed(model: str, speaker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "bad.wav"
    assert cli.main(["synthesize", "bad cab", "--model", model, "--voice", speaker, "-o", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert captured.err == "avtlm: without --vocoder, waveforms come from Griffin-Lim, which sounds rougher than a vocoder.\n"
    wave, rate = soundfile.read(out, dtype="float32")
    assert rate == 16000
    (spoken,) = synthesize(["bad cab"], model, voice())
    assert not spoken.cut
    np.testing.assert_allclose(wave, np.clip(spoken.wave, -1, 1), atol=1e-4)
    recogniser = str(save_tiny_recognizer(tmp_path / "recogniser"))
    assert cli.main(["transcribe", str(out), "--model", recogniser, "--modality", "a"]) == 0


def test_options_reach_the_model(model: str, speaker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocoder = str(save_vocoder(tmp_path / "vocoder"))
    said = ["synthesize", "bad", "--model", model, "--voice", speaker, "--vocoder", vocoder, "--threshold", "2", "--longest", "6"]
    extra = ["--mel", str(tmp_path / "a.npy"), "--attention", str(tmp_path / "a.png")]
    assert cli.main([*said, *extra, "-o", str(tmp_path / "a.wav")]) == 0
    assert "Griffin-Lim" not in capsys.readouterr().err
    mel = np.load(tmp_path / "a.npy")
    assert mel.shape == (3 * 6, 80)
    assert len(soundfile.read(tmp_path / "a.wav")[0]) == 256 * len(mel)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*said, "--mel", str(tmp_path / "b.npy"), "--seed", "1", "-o", str(tmp_path / "b.wav")]) == 0
    assert not np.allclose(np.load(tmp_path / "b.npy"), mel, atol=1e-3)


def test_every_line_of_a_file_is_said_but_those_that_cannot_be(
    model: str, speaker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("bad cab\nmorning\tace\n\nbad 7\nempty\t\nbed\n")
    out = tmp_path / "out"
    given = ["synthesize", "--file", str(tmp_path / "texts.txt"), "--model", model, "--voice", speaker, "--mel", str(tmp_path / "mel")]
    assert cli.main([*given, "-o", str(out)]) == 1
    captured = capsys.readouterr()
    names = ["0001", "morning", "0006"]
    assert captured.out.splitlines() == [str(out / f"{name}.wav") for name in names]
    lines = captured.err.splitlines()
    assert "avtlm: 'bad 7': the model's vocabulary has no '7'; spell it in symbols that there are." in lines
    assert "avtlm: '': there is nothing to say; give at least one letter." in lines
    assert lines[-1] == "avtlm: 2 of 5 could not be said."
    assert sorted(path.name for path in out.iterdir()) == sorted(f"{name}.wav" for name in names)
    assert sorted(path.name for path in (tmp_path / "mel").iterdir()) == sorted(f"{name}.npy" for name in names)


@pytest.mark.parametrize("verb", ["convert-voice", "enhance"])
def test_sound_is_said_again_and_a_bad_file_does_not_stop_the_others(
    verb: str, model: str, speaker: str, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    write_wav(tmp_path / "other.wav", made_media.chirps(0.7))
    out = tmp_path / "out"
    files = [clip, str(bad), str(tmp_path / "other.wav")]
    assert cli.main([verb, *files, "--model", model, "--voice", speaker, "-o", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(out / "clip.wav"), str(out / "other.wav")]
    assert any(str(bad) in line for line in captured.err.splitlines())
    assert captured.err.splitlines()[-1] == "avtlm: 1 of 3 could not be said."
    assert sorted(path.name for path in out.iterdir()) == ["clip.wav", "other.wav"]


def test_nothing_is_written_over_what_is_read(model: str, speaker: str, clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(clip).read_bytes()
    for out in (clip, str(Path(clip).parent)):
        assert "would overwrite" in failure(capsys, "enhance", clip, "--model", model, "--voice", speaker, "-o", out, code=2)
    assert Path(clip).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "reason", "code"),
    [
        (["--voice", "{tmp}/none.npy"], "none.npy is not there; give the embedding", 1),
        (["--voice", "{clip}"], "clip.wav is no file of speaker embeddings", 1),
        (["--vocoder", "{model}"], "speecht5 is no vocoder", 2),
        (["--vocoder", "{tmp}"], "are missing; copy the whole model folder again", 1),
        (["--model", "{recogniser}"], "holds a vatlm model for recognition; give the folder of a model for generation", 1),
        (["--model", "{tmp}/none"], "none is not a folder", 1),
        (["--threshold", "0"], "give a threshold above 0", 2),
        (["-o", "{tmp}/a.mp3"], "a.mp3: what is written here is a file *.wav", 2),
        (["--mel", "{tmp}/a.png"], "a.png: what is written here is a file *.npy", 2),
        (["--file", "{clip}"], "Give one text, or --file FILE", 2),
    ],
)
def test_wrong_use_is_one_sentence_and_writes_nothing(
    changes: list[str], reason: str, code: int, model: str, speaker: str, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recogniser = save_tiny_recognizer(tmp_path / "recogniser") if "{recogniser}" in changes else None
    there = sorted(tmp_path.iterdir())
    filled = [part.format(tmp=tmp_path, clip=clip, model=model, recogniser=recogniser) for part in changes]
    given = ["synthesize", "bad", "--model", model, "--voice", speaker, "-o", str(tmp_path / "a.wav"), *filled]
    found = failure(capsys, *given, code=code)
    assert reason in found
    assert sorted(tmp_path.iterdir()) == there


def test_a_voice_is_asked_for_where_the_model_takes_one(model: str, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, given in (("synthesize", "bad"), ("convert-voice", clip), ("enhance", clip)):
        reason = failure(capsys, verb, given, "--model", model, "-o", str(tmp_path / "a.wav"))
        assert "voice: none is given, but the model takes a speaker embedding of 5 values" in reason


def test_a_single_input_that_cannot_be_used_is_one_sentence(
    model: str, speaker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "short.wav", made_media.chirps(0.1))
    given = ["--model", model, "--voice", speaker, "-o", str(tmp_path / "a.wav")]
    assert "has only 0.100 s of sound" in failure(capsys, "convert-voice", str(tmp_path / "short.wav"), *given)
    assert "there is nothing to say" in failure(capsys, "synthesize", "", *given)
    assert not (tmp_path / "a.wav").exists()


def test_speech_that_does_not_end_is_cut_with_a_warning(
    model: str, speaker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", model, "--voice", speaker, "--threshold", "2", "-o", str(tmp_path / "a.wav")]
    assert cli.main(["synthesize", "bad", *given]) == 0
    assert "speech did not end by itself and was cut after 0.4 s" in capsys.readouterr().err
    assert (tmp_path / "a.wav").exists()
