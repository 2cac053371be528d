"""The miniature's speech: what each task's clips say of themselves is true, and no voice of the test is heard in training."""

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the extra 'synthetic'")

from avtlm.evaluation.slot_filling import slots
from avtlm.evaluation.superb.data import Corpus
from benchmarks.superb_speech import FEELINGS, SIZES, Speech, coloured_noise, slots_of
from preprocess.corpora.speech_commands import SILENCE, TEN, UNKNOWN


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Speech:
    made = Speech(tmp_path_factory.mktemp("miniature"), SIZES["smoke"], seed=1)
    made.say(workers=0)
    made.write()
    return made


@pytest.mark.parametrize("task", ["PR", "ASR", "ST", "IC", "SF", "ASV", "OOD-ASR", "KS"])
def test_voices_of_the_test_are_not_heard_in_training(speech: Speech, task: str) -> None:
    corpus = Corpus.read(speech.folder / task)
    heard, tested = ({clip.fields.get("speaker") for clip in corpus.split(split)} - {None} for split in ("train", "test"))
    assert heard
    assert heard.isdisjoint(tested)
    assert all(clip.audio.is_file() for split in ("train", "test") for clip in corpus.split(split))
    variants = {split: {voice.name.partition("+")[2] for voice in voices} for split, voices in speech.voices.items()}
    assert variants["train"].isdisjoint(variants["test"] | variants["valid"])


def test_speakers_to_be_named_are_in_all_splits_with_other_sentences(speech: Speech) -> None:
    corpus = Corpus.read(speech.folder / "SID")
    labels = [{clip.text("label") for clip in corpus.split(split)} for split in ("train", "dev", "test")]
    assert labels[0] == labels[1] == labels[2]
    assert len({clip.audio for split in ("train", "dev", "test") for clip in corpus.split(split)}) == sum(
        len(corpus.split(split)) for split in ("train", "dev", "test")
    )


def test_every_query_is_in_the_documents_that_are_said_to_hold_it_and_in_no_other(speech: Speech) -> None:
    corpus = Corpus.read(speech.folder / "QbE")
    texts = {row.id: (row.transcript or "").lower() for part in ("commands", "queries") for row in speech.rows(part)}
    held = {(row["query"], row["document"]) for _, row in corpus.rows("relevance")}
    for query in corpus.split("queries"):
        assert len(texts[query.id].split()) == 2
        assert {clip.id for clip in corpus.split("documents") if texts[query.id] in texts[clip.id]} == {
            document for asked, document in held if asked == query.id
        }
    said = {split: {texts[clip.id] for clip in corpus.split("queries") if clip.fields["split"] == split} for split in ("dev", "test")}
    assert said["dev"]
    assert said["dev"].isdisjoint(said["test"])


def test_keywords_come_with_other_words_and_silence(speech: Speech) -> None:
    clips = Corpus.read(speech.folder / "KS").split("train")
    labels = [clip.text("label") for clip in clips]
    assert set(labels) == {*TEN, UNKNOWN, SILENCE}
    silent = [clip.wave() for clip in clips if clip.text("label") == SILENCE]
    assert max(float(np.abs(wave).max()) for wave in silent) < 0.1


def test_feelings_differ_in_loudness_and_have_folds_of_voices(speech: Speech) -> None:
    corpus = Corpus.read(speech.folder / "ER")
    clips = corpus.split("train")
    assert corpus.folds == (1, 2, 3, 4, 5)
    folds: dict[str, set[int]] = {}
    for clip in clips:
        folds.setdefault(clip.fields["speaker"], set()).add(clip.fields["fold"])
    assert all(len(found) == 1 for found in folds.values())
    loud = {feeling: np.mean([np.std(clip.wave()) for clip in clips if clip.text("label") == feeling]) for feeling in FEELINGS}
    assert loud["sad"] < loud["neutral"] < loud["happy"] < loud["angry"]


def test_slots_and_translations_are_those_of_the_command(speech: Speech) -> None:
    assert slots(slots_of("place blue at f nine now")) == {"colour": ["BLUE"], "place": ["F NINE"], "time": ["NOW"]}
    clip = Corpus.read(speech.folder / "ST").split("train")[0]
    assert len(clip.text("translation").split()) == len(clip.text("text").split()) == 6
    phones = Corpus.read(speech.folder / "PR").split("train")[0].names("phones")
    assert len(phones) > 8
    assert "sil" not in phones


def test_trials_are_balanced(speech: Speech) -> None:
    same = [trial.same for trial in Corpus.read(speech.folder / "ASV").trials()]
    assert sum(same) * 2 == len(same) > 0
    for trial in Corpus.read(speech.folder / "ASV").trials():
        assert trial.same == (trial.first.fields["speaker"] == trial.second.fields["speaker"])


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_power_falls_as_asked(slope: float) -> None:
    wave = coloured_noise(1 << 15, slope, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(wave)) ** 2
    low, high = power[100:200].mean(), power[6400:12800].mean()  # six octaves apart
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(1, rel=1e-3)
    assert np.log2(low / high) / 6 == pytest.approx(slope, abs=0.1)
