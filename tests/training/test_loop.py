"""The training loop: it learns, resumes bit for bit, and names what goes wrong."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import config
from avtlm.config import ConfigError
from avtlm.data.batching import Batch
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.objectives.loss import Loss
from avtlm.recognizer import Recognizer
from avtlm.systems import load
from avtlm.systems.vatlm import VATLM
from avtlm.training.loop import TrainConfig, Trainer, train
from avtlm.training.meter import Meter
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import DECODER, MODEL, broken_and_resumed, journal, pretraining, recognition, run, same, weights


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


# Pre-training ---------------------------------------------------------------------------------------------------------------------------


def test_pretraining_on_four_kinds_of_batches_learns_each_of_them(corpus: MadeCorpus, tmp_path: Path) -> None:
    sources = pretraining(corpus, tmp_path)["sources"]
    for source in sources.values():
        source |= {"weight": 1.0, "augment": {}}
    lines = journal(run(pretraining(corpus, tmp_path / "run", sources=sources, steps=100, log_every=10, save_every=100)))
    for task in ("audio_video", "audio", "audio_text", "text"):
        losses = [line[f"{task}/masked_loss"] for line in lines]
        assert losses[-1] < 0.8 * losses[0], task
    assert lines[-1]["step"] == 100


def test_the_text_of_a_made_corpus_is_easier_to_guess_than_chance(corpus: MadeCorpus, tmp_path: Path) -> None:
    """What is hidden of text can be told from its neighbours: a phone lasts longer than a mask."""
    sources = {"text": {"manifest": str(corpus.text), "task": "text", "units": str(corpus.units)}}
    lines = journal(run(pretraining(corpus, tmp_path / "run", sources=sources, steps=120, log_every=20, save_every=120)))
    assert lines[-1]["text/masked_accuracy"] > 0.5


# Resuming -------------------------------------------------------------------------------------------------------------------------------


def test_a_run_stopped_between_checkpoints_repeats_the_lost_steps(corpus: MadeCorpus, tmp_path: Path) -> None:
    validation = {"manifest": str(corpus.clips), "task": "audio_video", "split": "valid", "units": str(corpus.units)}
    settings = {"steps": 11, "save_every": 4, "log_every": 3, "validation": validation, "validate_every": 2}
    whole = run(pretraining(corpus, tmp_path / "whole", **settings))
    model = broken_and_resumed(pretraining(corpus, tmp_path / "broken", **settings))
    assert same(model, whole)
    assert journal(model) == journal(whole)


def test_a_finished_run_started_again_changes_nothing(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = pretraining(corpus, tmp_path / "run", steps=2)
    model = run(settings)
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    assert run(settings) == model
    assert before == {path: path.stat().st_mtime_ns for path in model.rglob("*")}


def test_an_output_that_holds_another_model_is_refused(corpus: MadeCorpus, tmp_path: Path) -> None:
    run(pretraining(corpus, tmp_path / "run", steps=1))
    other = MODEL | {"final_dim": 12}
    with pytest.raises(ValueError, match="holds a run with another model configuration"):
        run(pretraining(corpus, tmp_path / "run", model=other))


def test_any_number_of_workers_makes_the_same_batches(corpus: MadeCorpus, tmp_path: Path) -> None:
    one, two = (run(pretraining(corpus, tmp_path / str(workers), steps=4, workers=workers)) for workers in (0, 2))
    assert same(one, two)
    assert journal(one) == journal(two)


def test_another_seed_is_another_run_and_the_same_seed_the_same(corpus: MadeCorpus, tmp_path: Path) -> None:
    models = [run(pretraining(corpus, tmp_path / name, steps=2, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


# What can go wrong ----------------------------------------------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, utterance: str | None) -> None:
    """Losses of batches with this utterance (any, if None) are not a number."""
    losses = VATLM.losses

    def poisoned(self: VATLM, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        found = losses(self, batch, generator)
        if utterance is None or utterance in batch.ids:
            found["masked_prediction"].value = found["masked_prediction"].value * math.nan
        return found

    monkeypatch.setattr(VATLM, "losses", poisoned)


def test_a_loss_that_is_not_finite_names_its_utterances_and_changes_nothing(
    corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad = next(row.id for row in read_manifest(corpus.clips) if row.split == "train")
    poison(monkeypatch, bad)
    trainer = Trainer(config.load(TrainConfig, pretraining(corpus, tmp_path / "run")))
    seen = 0
    for number, (batch, _) in zip(range(8), trainer.streams["audio_video"].batches((0, 0), iter([0.0] * 8)), strict=False):
        before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        caplog.clear()
        assert batch is not None
        trainer._step(number, [(0, [batch])], Meter())
        after = trainer.model.state_dict()
        unchanged = all(torch.equal(before[name], after[name]) for name in before)
        assert unchanged == (bad in batch.ids)
        if bad in batch.ids:
            seen += 1
            assert f"step {number}: the loss or its gradient is not finite" in caplog.text
            assert all(name in caplog.text for name in batch.ids)
    assert seen > 0


def test_training_stops_after_too_many_such_steps_and_a_single_one_is_survived(
    corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = next(row.id for row in read_manifest(corpus.clips) if row.split == "train")
    with monkeypatch.context() as patch:
        poison(patch, bad)
        model = run(pretraining(corpus, tmp_path / "single", steps=8, log_every=1))
        assert all(tensor.isfinite().all() for tensor in weights(model).values())
        assert all(math.isfinite(value) for line in journal(model) for value in line.values())
    poison(monkeypatch, None)
    with pytest.raises(FloatingPointError, match="loss not finite in 3 steps in a row, last at step 2 with utterance"):
        run(pretraining(corpus, tmp_path / "many", max_bad_steps=3))


def test_unknown_keys_and_wrong_types_are_named(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = pretraining(corpus, tmp_path / "run")
    path = tmp_path / "run.yaml"
    path.write_text(config.to_yaml(settings))
    with pytest.raises(ConfigError, match=r"key 'optim\.learning_rate' is not known"):
        train(path, ["optim.learning_rate=1"])
    with pytest.raises(ConfigError, match=r"key 'stepps' is not known; did you mean 'steps'"):
        train(path, ["stepps=1"])
    with pytest.raises(ConfigError, match=r"key 'optim\.lr' is 'fast'; expected a number"):
        train(path, ["optim.lr=fast"])
    with pytest.raises(ConfigError, match=r"key 'encoder\.dimm' is not known; did you mean 'encoder\.dim'"):
        train(path, ["model.encoder.dimm=1"])
    with pytest.raises(ConfigError, match="system: 'vatml' is unknown"):
        train(path, ["system=vatml"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": {}}, "no training data"),
        ({"steps": 0}, "steps 0"),
        ({"validate_every": 5}, "there is no validation source"),
        ({"max_frames": 3}, "max_frames: 3 is less than the longest utterance"),
        ({"optim": {"lr": -1.0}}, "give lr > 0"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    corpus: MadeCorpus, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(pretraining(corpus, tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def test_labels_and_phones_that_do_not_fit_the_model_are_named(corpus: MadeCorpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sources\.audio_video\.units: has unit 5, but the model predicts 5 units"):
        run(pretraining(corpus, tmp_path / "run", model=MODEL | {"units": 5}))
    few = MODEL["frontends"] | {"phones": 9}
    with pytest.raises(ValueError, match=r"model\.frontends\.phones: 9 is too few for the 10 symbols"):
        run(pretraining(corpus, tmp_path / "run", model=MODEL | {"frontends": few}))
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_when_a_save_was_killed_between_its_renames_and_when_it_gets_longer(corpus: MadeCorpus, tmp_path: Path) -> None:
    model = run(recognition(corpus, tmp_path / "run", steps=2))
    model.rename(model.with_name(".model.previous"))
    assert run(recognition(corpus, tmp_path / "run", steps=3)) == model
    assert [line["step"] for line in journal(model)] == [2, 3]


def test_going_on_with_other_transcripts_is_refused(corpus: MadeCorpus, tmp_path: Path) -> None:
    run(recognition(corpus, tmp_path / "run", steps=1))
    rows = tuple(replace(row, transcript=f"z{row.transcript}") for row in read_manifest(corpus.sound))
    write_manifest(tmp_path / "other" / "manifest.jsonl", Manifest(corpus.sound.parent, rows))
    other = {"a": {"manifest": str(tmp_path / "other" / "manifest.jsonl"), "task": "recognition"}}
    with pytest.raises(ValueError, match="was trained on transcripts with other symbols"):
        run(recognition(corpus, tmp_path / "run", steps=2, sources=other, validation=None))


# Fine-tuning ----------------------------------------------------------------------------------------------------------------------------


def test_recognition_with_ctc_learns_to_read_a_made_corpus(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = recognition(corpus, tmp_path / "run", steps=250, log_every=25, save_every=250, validate_every=125)
    model = run(settings | {"optim": {"lr": 0.01, "schedule": "cosine", "clip_norm": 2.0}})
    lines = [line for line in journal(model) if "ctc_loss" in line]
    assert lines[-1]["ctc_loss"] < 0.5 * lines[0]["ctc_loss"]
    checked = [line for line in journal(model) if "valid_wer" in line]
    assert [line["step"] for line in checked] == [125, 250]


def test_recognition_with_ctc_and_decoder_learns_both(corpus: MadeCorpus, tmp_path: Path) -> None:
    heads = {
        "encoder": MODEL,
        "ctc_weight": 0.3,
        "decoder": DECODER,
        "decoding": {"method": "attention", "beam": 3},
        "modality_dropout": 0.0,
    }
    settings = recognition(corpus, tmp_path / "run", model=heads, steps=80, log_every=10, save_every=80, validate_every=80)
    lines = journal(run(settings))
    trained = [line for line in lines if "ctc_loss" in line]
    for name in ("ctc_loss", "nll"):
        assert trained[-1][name] < 0.9 * trained[0][name]
    assert any("valid_wer" in line for line in lines)


def test_a_frozen_encoder_stays_as_it_was_and_moves_afterwards(corpus: MadeCorpus, tmp_path: Path) -> None:
    initial = run(pretraining(corpus, tmp_path / "initial", steps=2))
    models = []
    for name, steps in (("frozen", 3), ("thawed", 5)):
        heads = {"freeze_encoder_steps": 3, "modality_dropout": 0.0}
        optim = {"lr": 0.003, "schedule": "constant", "warmup": 0.0}
        models.append(run(recognition(corpus, tmp_path / name, initialise=str(initial), model=heads, steps=steps, optim=optim)))
    before = {f"encoder.{name}": tensor for name, tensor in weights(initial).items() if "running" not in name and "num_batches" not in name}
    frozen, thawed = weights(models[0]), weights(models[1])
    assert all(torch.equal(frozen[name], tensor) for name, tensor in before.items())
    assert not torch.equal(thawed["encoder.frontends.audio.weight"], before["encoder.frontends.audio.weight"])
    assert not torch.equal(
        frozen["encoder.frontends.lips.stem_norm.running_mean"], weights(initial)["frontends.lips.stem_norm.running_mean"]
    )


def test_the_best_model_of_validation_is_kept_and_loads_without_its_run(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = recognition(corpus, tmp_path / "run", steps=40, validate_every=10, log_every=10)
    model = run(settings)
    checked = [line["valid_wer"] for line in journal(model) if "valid_wer" in line]
    assert len(checked) == 4
    best = model.parent / "best"
    assert not (best / "trainer").exists()
    moved = best.rename(tmp_path / "elsewhere")
    recogniser = load(moved)
    assert isinstance(recogniser, Recognizer)
    assert not recogniser.training
    state = json.loads((model / "trainer" / "state.json").read_text())
    assert state["best"] == min(checked)


def test_sources_that_do_not_fit_the_task_are_named(corpus: MadeCorpus, tmp_path: Path) -> None:
    clips = str(corpus.clips)
    with pytest.raises(ValueError, match=r"sources\.a\.units: missing; a pre-training source needs unit labels"):
        run(pretraining(corpus, tmp_path / "run", sources={"a": {"manifest": clips, "task": "audio_video"}}))
    with pytest.raises(ValueError, match=r"validation\.units: missing"):
        run(pretraining(corpus, tmp_path / "run", validation={"manifest": clips, "task": "audio_video"}))
    with pytest.raises(ValueError, match=r"sources\.a\.task: 'audio' gives no batches for a run whose task is 'recognition'"):
        run(recognition(corpus, tmp_path / "run", sources={"a": {"manifest": clips, "task": "audio"}}))
    assert not (tmp_path / "run").exists()


def test_a_recogniser_of_sound_alone_is_trained_and_validated(corpus: MadeCorpus, tmp_path: Path) -> None:
    part = {"manifest": str(corpus.sound), "task": "recognition"}
    settings = recognition(corpus, tmp_path / "run", sources={"a": part}, validation=part | {"split": "valid"}, steps=2, validate_every=2)
    assert any("valid_wer" in line for line in journal(run(settings)))
