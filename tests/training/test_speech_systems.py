"""Systems over waveforms through the whole loop: pre-training, resuming with a teacher, fine-tuning with CTC."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtlm import config, systems
from avtlm.checkpoint import save_model
from avtlm.data.dataset import ClipDataset, Source, collate, crop_together
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.data.media import write_wav
from avtlm.evaluation.evaluate import evaluate
from avtlm.protocols import DropsHeads
from avtlm.pseudo_labels import pseudo_labels
from avtlm.systems import load, load_encoder
from avtlm.training.loop import TrainConfig, Trainer
from avtlm.transcribe import transcribe
from avtlm.units.labels import read_labels, write_labels
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import broken_and_resumed, journal, run, same, weights

ENCODER = {"dim": 32, "layers": 2, "heads": 2, "feed_forward_dim": 48, "position_kernel": 6, "position_groups": 4, "layer_drop": 0.1}
SHARED: dict[str, Any] = {
    "waveform": {"widths": [16] * 7, "dropout": 0.1},
    "encoder": {"norm_first": False, **ENCODER},
    "mask": {"prob": 0.5, "length": 3},
    "feature_gradient_scale": 1.0,
}
TAUGHT = {
    "waveform": {"widths": [16] * 7, "norm": "layer", "normalise": True},
    "encoder": {"norm_first": False, **ENCODER, "position_kernel": 15, "position_blocks": 5},
    "targets": {"layers": 1},
    "teacher": {"decay": 0.9, "end_decay": 0.99, "anneal_steps": 8},
}
MODELS: dict[str, dict[str, Any]] = {
    "hubert": SHARED | {"units": 6, "final_dim": 8, "feature_penalty": 0.1},
    "wavlm": SHARED | {"encoder": SHARED["encoder"] | {"relative_buckets": 8}, "units": 6, "final_dim": 8, "feature_penalty": 0.1},
    "wav2vec2": SHARED | {"quantizer": {"entries": 8}, "final_dim": 8, "negatives": 5, "feature_penalty": 0.1},
    "data2vec": SHARED | TAUGHT,
    "mt4ssl": SHARED | TAUGHT | {"units": 6},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    """Labels at 50 Hz."""
    made = make_corpus(tmp_path_factory.mktemp("corpus"), 24)
    write_labels(made.units, {name: np.repeat(row, 2) for name, row in read_labels(made.units).items()})
    return made


def pretraining(corpus: MadeCorpus, output: Path, system: str, **changes: Any) -> dict[str, Any]:
    source = {"manifest": str(corpus.sound), "task": "audio", "units": str(corpus.units)}
    settings = {
        "system": system,
        "task": "pretrain",
        "output": str(output),
        "sources": {"audio": source},
        "model": MODELS[system],
        "steps": 12,
        "max_rows": 4,
        "log_every": 3,
        "save_every": 4,
        "threads": 1,
        "tensorboard": False,
        "optim": {"lr": 0.003, "schedule": "cosine", "clip_norm": 2.0},
    }
    return settings | changes


def recognition(corpus: MadeCorpus, output: Path, system: str, **changes: Any) -> dict[str, Any]:
    settings = pretraining(corpus, output, system) | {
        "task": "recognition",
        "sources": {"labelled": {"manifest": str(corpus.sound), "task": "recognition"}},
        "validation": {"manifest": str(corpus.sound), "task": "recognition", "split": "valid"},
        "model": {"encoder": {"feature_gradient_scale": 0.0}, "dropout": 0.0},
    }
    return settings | changes


@pytest.mark.parametrize("system", MODELS)
def test_a_run_stopped_between_checkpoints_repeats_the_lost_steps(corpus: MadeCorpus, tmp_path: Path, system: str) -> None:
    whole = run(pretraining(corpus, tmp_path / "whole", system))
    model = broken_and_resumed(pretraining(corpus, tmp_path / "broken", system))
    assert same(model, whole)
    assert journal(model) == journal(whole)


def test_hubert_learns_the_units_of_a_made_corpus(corpus: MadeCorpus, tmp_path: Path) -> None:
    lines = journal(run(pretraining(corpus, tmp_path / "run", "hubert", steps=120, log_every=20, save_every=120)))
    assert lines[-1]["audio/masked_accuracy"] > 0.5


def test_a_model_that_learns_from_no_units_needs_none(corpus: MadeCorpus, tmp_path: Path) -> None:
    source = {"manifest": str(corpus.sound), "task": "audio", "crop_frames": 25}
    validation = source | {"split": "valid", "crop_frames": None}
    settings = {"sources": {"audio": source}, "validation": validation, "validate_every": 2, "steps": 2}
    lines = journal(run(pretraining(corpus, tmp_path / "run", "wav2vec2", **settings)))
    assert lines[-1]["valid_masked_loss"] > 0
    with pytest.raises(ValueError, match=r"sources\.audio\.units: missing"):
        config.load(TrainConfig, pretraining(corpus, tmp_path / "no", "hubert", sources={"audio": source}))


def test_ctc_on_a_pretrained_model_reads_the_made_corpus_and_carries_no_heads(corpus: MadeCorpus, tmp_path: Path) -> None:
    first = run(pretraining(corpus, tmp_path / "first", "mt4ssl", steps=4))
    masks = {"audio_mask": {"prob": 0.2, "length": 3}, "channel_mask": {"prob": 0.2, "length": 4}}
    settings = recognition(corpus, tmp_path / "second", "mt4ssl", initialise=str(first), steps=150, log_every=50, save_every=150)
    settings["model"] = settings["model"] | masks | {"freeze_encoder_steps": 2}
    model = run(settings)
    before, after = weights(first), weights(model)
    assert not any(name.startswith(("encoder.teacher.", "encoder.regress.", "encoder.classify.")) for name in after)
    convolutions = [name for name in before if name.startswith("frontend.layers.")]
    assert convolutions
    assert all(torch.equal(before[name], after[f"encoder.{name}"]) for name in convolutions)
    assert not torch.equal(
        before["encoder.layers.0.feed_forward.expand.weight"], after["encoder.encoder.layers.0.feed_forward.expand.weight"]
    )

    recogniser = load(model)
    assert recogniser.inputs.frame_rate == 50.0
    losses = [line["ctc_loss"] for line in journal(model) if "ctc_loss" in line]
    assert losses[-1] < 0.7 * losses[0], losses
    assert evaluate(corpus.sound, recogniser, ["a"], split="train").conditions[0].texts
    with pytest.raises(ValueError, match="this model hears only"):
        evaluate(corpus.sound, recogniser, ["av"])
    with pytest.raises(ValueError, match="this model hears only"):
        pseudo_labels(corpus.sound, recogniser, tmp_path / "labels.jsonl")
    assert pseudo_labels(corpus.sound, recogniser, tmp_path / "labels.jsonl", "a").failed == {}
    row = read_manifest(corpus.sound)[0]
    path = corpus.sound.parent / str(row.audio)
    [found] = transcribe([path], recogniser)
    assert found.duration == pytest.approx(row.duration, abs=0.01)
    assert all(word.end <= row.duration + 0.04 for word in found.words if word.end is not None)
    with pytest.raises(ValueError, match="hears only"):
        transcribe([path], recogniser, "v")
    # A second fine-tuning may start from the first, whose encoder has no heads any more.
    encoder, inputs = load_encoder(model)
    assert inputs.waveform
    assert not any(name.startswith("teacher.") for name in encoder.state_dict())
    again = settings | {"initialise": str(model), "output": str(tmp_path / "third"), "steps": 1}
    assert run(again).exists()


@pytest.mark.parametrize(("system", "heads"), [("hubert", ["predictor"]), ("mt4ssl", ["regress", "classify", "teacher"])])
def test_an_encoder_without_heads_is_trained_further_with_fresh_ones(
    system: str, heads: list[str], corpus: MadeCorpus, tmp_path: Path
) -> None:
    """Checkpoints of other code often hold the encoder alone. A teacher starts as the student that was loaded."""
    found = systems.find(system)
    encoder = found.build(config.load(found.config_class(), MODELS[system]))
    assert isinstance(encoder, DropsHeads)
    encoder.drop_heads()
    card = {"system": system, "task": "pretrain", "heads": False, "model": MODELS[system]}
    save_model(tmp_path / "encoder", encoder, card)
    settings = pretraining(corpus, tmp_path / "run", system, initialise=str(tmp_path / "encoder"))
    with pytest.raises(ValueError, match=r"do not fit this model \((predictor|regress)\..*name them in fresh"):
        Trainer(config.load(TrainConfig, settings))
    model = Trainer(config.load(TrainConfig, settings | {"fresh": heads})).model
    ours = model.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in encoder.state_dict().items())
    teacher = {name: tensor for name, tensor in ours.items() if name.startswith("teacher.")}
    assert all(torch.equal(tensor, ours[name.removeprefix("teacher.")]) for name, tensor in teacher.items())
    assert bool(teacher) == ("teacher" in heads)


def test_waveforms_are_cropped_together_with_their_units(corpus: MadeCorpus) -> None:
    source = Source(str(corpus.sound), "audio", units=str(corpus.units), crop_frames=30)
    inputs = Trainer(config.load(TrainConfig, pretraining(corpus, Path("nowhere"), "hubert"))).start.inputs
    dataset = ClipDataset(source, inputs=inputs)
    assert dataset.frames(0) == 30
    items = [dataset.item(index) for index in range(4)]
    cut = crop_together(items, 30, np.random.default_rng(0), inputs.label_rate, inputs.frame_rate)
    whole, batch = collate(items, "audio"), collate(cut, "audio")
    assert batch.audio is not None
    assert whole.audio is not None
    assert batch.audio.shape == (4, 30 * 320)
    assert batch.targets["units"].shape == (4, 30)
    for row, item in enumerate(items):
        assert item.audio is not None
        assert item.units is not None
        starts = [s for s in range(len(item.units)) if torch.equal(item.audio[320 * s : 320 * (s + 30)], batch.audio[row])]
        assert len(starts) == 1
        assert torch.equal(item.units[starts[0] : starts[0] + 30], batch.targets["units"][row])


def test_a_clip_below_one_window_is_named(corpus: MadeCorpus, tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", np.zeros(300, dtype=np.float32))
    row = read_manifest(corpus.sound)[0]
    short = type(row)("short", audio="short.wav", audio_samples=300, transcript="a")
    write_manifest(tmp_path / "manifest.jsonl", Manifest(tmp_path, (short,)))
    inputs = Trainer(config.load(TrainConfig, pretraining(corpus, Path("nowhere"), "hubert"))).start.inputs
    dataset = ClipDataset(Source(str(tmp_path / "manifest.jsonl"), "audio", split=None, min_seconds=0.0), inputs=inputs)
    with pytest.raises(ValueError, match="utterance 'short' has 300 samples, fewer than the 400 of one frame; raise min_seconds"):
        dataset.item(0)


def test_augmentation_of_filter_banks_is_refused_for_waveforms(corpus: MadeCorpus, tmp_path: Path) -> None:
    source = {"manifest": str(corpus.sound), "task": "audio", "units": str(corpus.units), "augment": {"frequency_masks": 1}}
    with pytest.raises(ValueError, match="work on filter banks, not on this model's waveforms"):
        run(pretraining(corpus, tmp_path / "run", "hubert", sources={"audio": source}))


def test_letters_are_validated_whatever_the_case_of_the_transcripts(
    corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model writes upper case, the made transcripts are in lower case: all right is no error."""
    spoken = {row.id: (row.transcript or "").upper() for row in read_manifest(corpus.sound)}
    monkeypatch.setattr(
        "avtlm.training.validation.transcribe_all", lambda model, batches: {name: spoken[name] for batch in batches for name in batch.ids}
    )
    settings = recognition(corpus, tmp_path / "run", "hubert", vocabulary="letters", validate_every=1, steps=1)
    settings["model"] = settings["model"] | {"encoder": MODELS["hubert"]}
    model = run(settings)
    assert [line["valid_wer"] for line in journal(model) if "valid_wer" in line] == [0.0]
    assert len(load(model).vocabulary) == 32
    with pytest.raises(ValueError, match="subwords: 40 together with vocabulary: letters; choose one of them"):
        config.load(TrainConfig, settings | {"subwords": 40})


def test_a_lexicon_that_is_missing_stops_a_run_before_its_first_step(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = recognition(corpus, tmp_path / "run", "hubert")
    settings["model"] = {"encoder": MODELS["hubert"], "decoding": {"method": "ctc_lexicon", "lexicon": "nowhere.txt"}}
    with pytest.raises(ValueError, match=r"decoding\.lexicon: there is no file nowhere\.txt"):
        run(settings)
    assert not (tmp_path / "run").exists()
