"""Texts and sound become speech; nothing depends on a batch; what cannot be said says so in one sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from avtlm.data.container import MediaError
from avtlm.data.media import write_wav
from avtlm.data.seeds import seed_for
from avtlm.frontends.griffin_lim import griffin_lim
from avtlm.speaking import (
    ROWS,
    TextError,
    convert_voice,
    convert_voice_each,
    enhance,
    output_files,
    read_texts,
    synthesize,
    synthesize_each,
)
from avtlm.speech_writer import Delivery, SpeechWriter, Spoken, find_voice, load_writer
from avtlm.text.vocabulary import Vocabulary
from tests import made_media
from tests.made_voice import OPTIONS, SYMBOLS, WIDTH, save_vocoder, save_voice, save_writer, voice, writer
from tests.systems.sequence_models import speecht5

TEXTS = ["abc", "bad cab ace", "e", "dead bed"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_writer(tmp_path_factory.mktemp("writers") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> SpeechWriter:
    return load_writer(folder)


def sound_file(path: Path, seconds: float) -> Path:
    write_wav(path, made_media.chirps(seconds))
    return path


def pauses_file(path: Path) -> Path:
    """Five bursts of 0.8 s, pauses of 0.8 s between them; after a second of silence."""
    burst, pause = made_media.chirps(0.8), np.zeros(12800, np.float32)
    write_wav(path, np.concatenate([np.zeros(16000, np.float32), *[burst, pause] * 5]))
    return path


# Synthesis ----------------------------------------------------------------------------------------------------------------------------


def test_a_text_becomes_a_waveform_with_its_spectrogram_and_attention(folder: Path) -> None:
    (spoken,) = synthesize(["bad cab"], folder, voice())
    assert spoken.rate == 16000
    assert spoken.mel.shape[1] == 80
    assert spoken.wave.shape == (256 * len(spoken.mel),)
    assert spoken.wave.dtype == np.float32
    assert spoken.seconds == pytest.approx(len(spoken.wave) / 16000)
    (look,) = spoken.attention
    assert look.shape == (2, len(spoken.mel) // 2, len("bad cab"))
    np.testing.assert_allclose(look.sum(-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("official", [False, True], ids=["", "padding computed"])
def test_what_is_said_does_not_depend_on_the_other_texts(official: bool) -> None:
    changes: dict[str, Any] = {"compute_padding": True, "spectrogram": {"compute_padding": True}} if official else {}
    given = SpeechWriter(writer(**changes), Vocabulary(SYMBOLS), OPTIONS)
    together = synthesize(TEXTS, given, voice())
    assert len({len(each.wave) for each in together}) > 1
    for text, found in zip(TEXTS, together, strict=True):
        (alone,) = synthesize([text], given, voice())
        np.testing.assert_allclose(found.mel, alone.mel, atol=1e-4)
        assert found.cut == alone.cut


def test_a_seed_repeats_what_is_said(model: SpeechWriter) -> None:
    first, again, other = (synthesize(["bad cab"], model, voice(), seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.wave, again.wave)
    assert first.wave.shape != other.wave.shape or not np.array_equal(first.wave, other.wave)


def test_another_voice_says_it_differently(model: SpeechWriter) -> None:
    first, louder, other = (synthesize(["bad cab"], model, each)[0] for each in (voice(), 3 * voice(), voice(1)))
    np.testing.assert_allclose(first.mel, louder.mel, atol=1e-4)  # models take embeddings of length 1
    assert first.mel.shape != other.mel.shape or not np.allclose(first.mel, other.mel, atol=1e-3)


def test_more_texts_than_a_batch_come_in_their_order(model: SpeechWriter) -> None:
    texts = ["abcde"[: 1 + number % 5] for number in range(2 * ROWS + 3)]
    found = list(synthesize_each(texts, Delivery.prepare(model, voice())))
    assert [text for text, _ in found] == texts
    by_text = {text: result for text, result in found}
    for text, result in found:
        assert not isinstance(result, TextError)
        same = by_text[text]
        assert not isinstance(same, TextError)
        np.testing.assert_allclose(result.mel, same.mel, atol=1e-4)


def test_one_text_alone_is_not_taken_apart(model: SpeechWriter) -> None:
    assert len(synthesize("bad", model, voice())) == 1


def test_without_a_vocoder_waveforms_come_from_griffin_lim(model: SpeechWriter, tmp_path: Path) -> None:
    (plain,) = synthesize(["bad"], model, voice())
    np.testing.assert_array_equal(plain.wave, griffin_lim(torch.from_numpy(plain.mel), seed_for(0, "phases")).numpy())
    (voiced,) = synthesize(["bad"], model, voice(), save_vocoder(tmp_path / "vocoder"))
    np.testing.assert_array_equal(plain.mel, voiced.mel)
    assert voiced.wave.shape == plain.wave.shape
    assert np.abs(voiced.wave).max() <= 1.0
    assert not np.allclose(voiced.wave, plain.wave, atol=1e-3)


def test_a_text_ends_with_a_symbol_where_the_folder_says_so(tmp_path: Path) -> None:
    ended = save_writer(tmp_path / "model", replace(OPTIONS, end_symbol=True))
    (spoken,) = synthesize(["bad"], ended, voice())
    assert spoken.attention[0].shape[2] == 4
    (without,) = synthesize(["bad"], ended, voice(), options=["end_symbol=false"])
    assert without.attention[0].shape[2] == 3


def test_options_change_when_speech_ends(model: SpeechWriter, caplog: pytest.LogCaptureFixture) -> None:
    (cut,) = synthesize(["bad cab"], model, voice(), options=["threshold=2.0", "longest=6"])
    assert cut.cut
    assert len(cut.mel) == 7 * 6
    assert "'bad cab': speech did not end by itself and was cut after 0.7 s" in caplog.text
    caplog.clear()
    (brief,) = synthesize(["bad cab"], model, voice(), options=["threshold=0.001"])
    assert not brief.cut
    assert len(brief.mel) == 2
    assert len(brief.wave) == 512
    assert not caplog.records
    assert model.options == OPTIONS


def test_models_without_voices_and_of_one_kind_of_input_work_too(tmp_path: Path) -> None:
    alone: dict[str, Any] = {"outputs": ("speech",), "ctc_head": "none", "units": 0, "codebook": None, "spectrogram": {"voice_dim": 0}}
    texts = save_writer(tmp_path / "texts", inputs=("text",), **alone)
    assert len(synthesize(["abc"], texts)) == 1
    sound = sound_file(tmp_path / "a.wav", 0.5)
    with pytest.raises(ValueError, match=r"texts: this model reads text, not speech; synthesize with it\."):
        convert_voice([sound], texts)
    sounds = save_writer(tmp_path / "sounds", inputs=("speech",), vocabulary=False, **alone)
    assert len(enhance([sound], sounds)) == 1
    with pytest.raises(ValueError, match=r"sounds: this model reads speech, not text; convert voices or enhance with it\."):
        synthesize(["abc"], sounds)
    with pytest.raises(ValueError, match="voice: this model knows no voices"):
        enhance([sound], sounds, voice())


def test_a_file_is_softer_rather_than_clipped(tmp_path: Path) -> None:
    loud = np.array([0.0, 2.0, -1.0, 0.5], np.float32)
    Spoken(loud, np.zeros((1, 80), np.float32), (), cut=False).save(tmp_path / "loud.wav")
    np.testing.assert_allclose(soundfile.read(tmp_path / "loud.wav")[0], loud / 2, atol=1e-4)
    soft = Spoken(loud / 4, np.zeros((1, 80), np.float32), (np.ones((1, 2, 3), np.float32),), cut=False)
    soft.save(tmp_path / "soft.wav", mel=tmp_path / "soft.npy", attention=tmp_path / "soft.png")
    np.testing.assert_allclose(soundfile.read(tmp_path / "soft.wav")[0], loud / 4, atol=1e-4)
    assert np.load(tmp_path / "soft.npy").shape == (1, 80)
    assert (tmp_path / "soft.png").exists()


# Bad texts ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'': there is nothing to say; give at least one letter."),
        (" \t ", r"' \\t ': there is nothing to say"),
        ("bad 7 zebras", "'bad 7 zebras': the model's vocabulary has no '7', 'r', 's', 'z'; spell it in symbols that there are."),
        ("Bad", "'Bad': the model's vocabulary has no 'B'; write it in lower case."),
        ("<mask>", "the model's vocabulary has no '<', '>', 'k', 'm', 's'"),
        ("x" * 100, "'x{37}[.]{3}': the model's vocabulary has no 'x'"),
    ],
)
def test_texts_that_cannot_be_said_are_named(text: str, reason: str, model: SpeechWriter) -> None:
    with pytest.raises(TextError, match=reason) as caught:
        synthesize([text], model, voice())
    assert "\n" not in str(caught.value)
    found = list(synthesize_each(["abc", text, "cab"], Delivery.prepare(model, voice())))
    assert [isinstance(result, TextError) for _, result in found] == [False, True, False]


def test_a_folder_without_a_vocabulary_says_where_to_get_one(tmp_path: Path) -> None:
    bare = save_writer(tmp_path / "bare", vocabulary=False)
    with pytest.raises(ValueError, match=r"bare: the folder has no vocabulary to read text with; .* --vocabulary"):
        synthesize(["abc"], bare, voice())


# Conversion and enhancement -------------------------------------------------------------------------------------------------------------


def test_sound_becomes_speech_whatever_it_is_batched_with(model: SpeechWriter, tmp_path: Path) -> None:
    paths = [sound_file(tmp_path / f"{number}.wav", 0.4 + 0.25 * number) for number in range(3)]
    paths.append(made_media.write_media(tmp_path / "talk.mp4", made_media.talking(0.8), audio=made_media.chirps(0.8)))
    together = convert_voice(paths, model, voice())
    for path, found in zip(paths, together, strict=True):
        (alone,) = enhance([path], model, voice())
        np.testing.assert_allclose(found.mel, alone.mel, atol=1e-4)
        assert found.attention[0].shape[0] == 2


def test_a_long_recording_is_divided_at_its_pauses_and_keeps_them(model: SpeechWriter, tmp_path: Path) -> None:
    path = pauses_file(tmp_path / "long.wav")
    short = sound_file(tmp_path / "short.wav", 0.6)
    first, divided, last = convert_voice([short, path, short], model, voice(), window=2.0)
    assert len(divided.attention) == 5
    assert divided.wave.shape == (256 * len(divided.mel),)
    silent = (divided.mel == -10.0).all(axis=1)
    assert 0.6 < silent.argmin() * 256 / 16000 < 1.0  # the first second, but for what is kept before speech
    assert not divided.wave[: int(silent.argmin()) * 256].any()
    edges = int((np.diff(silent.astype(int)) == -1).sum())
    assert edges == 5
    np.testing.assert_allclose(first.mel, last.mel, atol=1e-4)
    (whole,) = convert_voice([path], model, voice(), window=0, options=["longest=0.5"])
    assert len(whole.attention) == 1


def test_speech_without_a_pause_is_cut_without_being_said_twice(model: SpeechWriter, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    loudness = np.repeat(generator.uniform(0.2, 1.0, 50), 1600)
    write_wav(tmp_path / "long.wav", 0.5 * loudness * made_media.chirps(5.0))
    (divided,) = convert_voice([tmp_path / "long.wav"], model, voice(), window=2.0)
    read = sum(look.shape[2] for look in divided.attention)
    assert len(divided.attention) >= 3
    assert read <= 250  # frames of 20 ms


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("0.1 s", r"has only 0\.100 s of sound; at least 0\.2 s are needed"),
        ("silence", "is silent; there is nothing to hear"),
        ("long silence", "no speech is heard in it"),
        ("no audio", "has no audio track"),
        ("text", "is not a media file that can be read"),
        ("missing", "there is no such file"),
        ("empty", "is empty"),
    ],
)
def test_sound_that_cannot_be_used_says_why_and_the_others_go_on(case: str, reason: str, model: SpeechWriter, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    if case == "0.1 s":
        sound_file(path, 0.1)
    elif case in ("silence", "long silence"):
        write_wav(path, np.zeros(16000 * (3 if case == "long silence" else 1), np.float32))
    elif case == "no audio":
        path = made_media.write_media(tmp_path / "clip.mp4", made_media.talking(0.4))
    elif case != "missing":
        path.write_text("text" if case == "text" else "")
    good = sound_file(tmp_path / "good.wav", 0.5)
    with pytest.raises(MediaError, match=reason) as caught:
        convert_voice([path], model, voice(), window=2.0)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    results = [result for _, result in convert_voice_each([good, path, good], Delivery.prepare(model, voice()), window=2.0)]
    assert [isinstance(result, MediaError) for result in results] == [False, True, False]


# Voices, vocoders, models ---------------------------------------------------------------------------------------------------------------


def test_voices_come_from_arrays_and_files_of_one_or_several(tmp_path: Path) -> None:
    wanted = torch.from_numpy(voice())[None]
    np.save(tmp_path / "row.npy", voice()[None])
    np.savez(tmp_path / "two.npz", alice=voice(), bob=voice(1))
    save_file({"alice": torch.from_numpy(voice())}, tmp_path / "one.safetensors")
    for given, speaker in (
        (voice(), None),
        (torch.from_numpy(voice()), None),
        (tmp_path / "row.npy", None),
        (str(save_voice(tmp_path / "alice.npy")), None),
        (tmp_path / "two.npz", "alice"),
        (tmp_path / "one.safetensors", None),
    ):
        found = find_voice(given, WIDTH, speaker)
        assert found is not None
        torch.testing.assert_close(found, wanted)


def test_voices_that_do_not_fit_are_one_sentence_each(tmp_path: Path, model: SpeechWriter) -> None:
    np.save(tmp_path / "wide.npy", np.ones(192, np.float32))
    np.save(tmp_path / "zero.npy", np.zeros(WIDTH, np.float32))
    np.save(tmp_path / "nan.npy", np.full(WIDTH, np.nan, np.float32))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "two.npz", alice=voice(), bob=voice(1))
    (tmp_path / "text.npz").write_text("text")
    sound_file(tmp_path / "clip.wav", 0.5)
    cases: list[tuple[object, str | None, str]] = [
        (None, None, "voice: none is given, but the model takes a speaker embedding of 5 values"),
        (np.ones(3), None, "voice: the embedding has 3 values, but the model takes a speaker embedding of 5"),
        (tmp_path / "wide.npy", None, "wide.npy has 192 values, but the model takes a speaker embedding of 5"),
        (tmp_path / "zero.npy", None, "zero.npy is zero or not finite, as of a silent reference"),
        (tmp_path / "nan.npy", None, "nan.npy is zero or not finite"),
        (tmp_path / "objects.npy", None, "objects.npy is no array of numbers"),
        (tmp_path / "two.npz", None, "two.npz holds 2 voices; name the speaker, such as one of alice, bob"),
        (tmp_path / "zero.npy", "carol", r"speaker: 'carol', but only a voice file \*.npz or \*.safetensors has embeddings by name"),
        (None, "carol", "speaker: 'carol', but only a voice file"),
        (tmp_path / "two.npz", "carol", "two.npz: no speaker embedding of 'carol'"),
        (tmp_path / "text.npz", None, "text.npz cannot be read"),
        (tmp_path / "clip.wav", None, "clip.wav is no file of speaker embeddings; give the embedding"),
        (tmp_path / "none.npy", None, "none.npy is not there"),
    ]
    for given, speaker, reason in cases:
        with pytest.raises(ValueError, match=reason) as caught:
            synthesize(["abc"], model, given, speaker=speaker)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_vocoders_and_models_that_do_not_fit_are_one_sentence_each(tmp_path: Path, folder: Path, model: SpeechWriter) -> None:
    with pytest.raises(ValueError, match="speecht5 is no vocoder"):
        synthesize(["abc"], model, voice(), folder)
    with pytest.raises(ValueError, match="is not a folder; give the folder of a model"):
        synthesize(["abc"], model, voice(), tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"vocoder: it makes 256 samples of each frame of 6 bands, but the model writes .* 80 bands"):
        synthesize(["abc"], model, voice(), save_vocoder(tmp_path / "narrow", bands=6))
    with pytest.raises(ValueError, match="vocoder: it makes 64 samples of each frame"):
        synthesize(["abc"], model, voice(), save_vocoder(tmp_path / "short", rates=(8, 8), kernels=(16, 16)))
    narrow = SpeechWriter(speecht5(task="generation"), Vocabulary(SYMBOLS), OPTIONS)
    with pytest.raises(ValueError, match="Griffin-Lim takes 80 bands, but this model writes 6"):
        synthesize(["abc"], narrow, voice())
    with pytest.raises(ValueError, match="holds a hifigan model for vocoder; give the folder of a model for generation"):
        synthesize(["abc"], tmp_path / "narrow", voice())
    with pytest.raises(ValueError, match="key 'treshold' is not known; did you mean 'threshold'"):
        synthesize(["abc"], model, voice(), options=["treshold=1"])
    with pytest.raises(ValueError, match="give a threshold above 0"):
        synthesize(["abc"], model, voice(), options=["threshold=0"])


def test_a_model_that_has_diverged_says_so() -> None:
    network = writer()
    assert network.spectrogram is not None
    with torch.no_grad():
        network.spectrogram.frames.bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match="'abc': model wrote values that are not finite; its training has diverged"):
        synthesize(["abc"], SpeechWriter(network, Vocabulary(SYMBOLS), OPTIONS), voice())


# Files ----------------------------------------------------------------------------------------------------------------------------------


def test_texts_are_read_by_name_or_by_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("bad cab\n\nmorning\tace\nempty\t\n", encoding="utf-8")
    assert read_texts(path) == [("0001", "bad cab"), ("morning", "ace"), ("empty", "")]
    for content, reason in (("\n \n", "there is no text in it"), ("a/b\tx\n", "line 1: 'a/b' cannot be the name of a file")):
        path.write_text(content)
        with pytest.raises(ValueError, match=reason):
            read_texts(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as text"):
        read_texts(path)
    with pytest.raises(ValueError, match="No such file"):
        read_texts(tmp_path / "none.txt")


def test_speech_goes_into_one_file_or_into_a_folder(tmp_path: Path) -> None:
    assert output_files(["a"], "x.wav") == [Path("x.wav")]
    assert output_files(["a", "b"], tmp_path / "out") == [tmp_path / "out" / "a.wav", tmp_path / "out" / "b.wav"]
    assert output_files(["a"], "v1.0") == [Path("v1.0/a.wav")]
    for names, out, reason in (
        (["a", "b"], "x.wav", "x.wav is one file, but there are 2 to write"),
        (["a"], "x.mp3", r"x.mp3: what is written here is a file \*.wav"),
        (["a", "a"], "x", "x/a.wav would be written twice"),
    ):
        with pytest.raises(ValueError, match=reason):
            output_files(names, out)
