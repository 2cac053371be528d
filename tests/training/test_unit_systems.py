"""SpeechLM and SpeechUT through the whole loop: speech and units of unpaired text, recognition and translation, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import checkpoint, config, systems
from avtlm.convert.fairseq import convert
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.evaluation.evaluate import evaluate
from avtlm.plan import plan
from avtlm.text.vocabulary import load_vocabulary
from avtlm.training.loop import TrainConfig, Trainer, train
from avtlm.units.labels import read_labels, write_labels
from tests.convert.made_bridge import WRITER, fine_tuned_file, made
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import broken_and_resumed, journal, run, same, weights, with_units_at_50_hz

SIZES = {"dim": 32, "layers": 2, "heads": 2, "feed_forward_dim": 48, "norm_first": False, "layer_drop": 0.1, "key_distance": 8}
DECODER = {**SIZES, "activation": "gelu", "tie_embeddings": False, "scale_embedding": True, "max_positions": 64}
MODEL: dict[str, Any] = {
    "waveform": {"widths": [16] * 7, "dropout": 0.1},
    "encoder": {**SIZES, "position_kernel": 6, "position_groups": 4},
    "unit_encoder": SIZES | {"max_positions": 200},
    "mask": {"prob": 0.5, "length": 3},
    "swap": {"prob": 0.3, "length": 2},
    "feature_gradient_scale": 1.0,
    "units": 11,
    "final_dim": 8,
}
SYMBOLS = 4 + 1 + 6 + 1  # special ones, the space, a to f, <mask>
both = pytest.mark.parametrize("system", ["speechlm", "speechut"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    """With translations of the transcripts in other letters."""
    folder = tmp_path_factory.mktemp("corpus")
    made = with_units_at_50_hz(make_corpus(folder, 24), folder)
    for path in (made.sound, made.text):
        rows = [replace(row, extra={"translation": (row.transcript or "").upper()[::-1]}) for row in read_manifest(path)]
        write_manifest(path, Manifest(path.parent, tuple(rows)))
    return made


def pretraining(corpus: MadeCorpus, output: Path, system: str, **changes: Any) -> dict[str, Any]:
    units = {"task": "units", "units": str(corpus.units), "max_frames": 200}
    sources: dict[str, Any] = {
        "speech": {"manifest": str(corpus.sound), "task": "speech", "units": str(corpus.units), "crop_frames": 40},
        "text": {"manifest": str(corpus.text), **units},
    }
    if system == "speechut":
        sources["masked"] = {"manifest": str(corpus.text), **units, "written": None}
    settings = {
        "system": system,
        "task": "pretrain",
        "output": str(output),
        "sources": sources,
        "model": MODEL | ({"decoder": DECODER} if system == "speechut" else {}),
        "steps": 12,
        "max_rows": 4,
        "log_every": 3,
        "save_every": 4,
        "threads": 1,
        "tensorboard": False,
        "optim": {"lr": 0.003, "schedule": "linear", "clip_norm": 5.0},
    }
    return settings | changes


def finetuning(corpus: MadeCorpus, output: Path, system: str, **changes: Any) -> dict[str, Any]:
    source = {"manifest": str(corpus.sound), "task": "recognition"}
    settings = pretraining(corpus, output, system) | {
        "task": "transcription",
        "sources": {"labelled": source},
        "validation": source | {"split": "valid"},
        "model": {} if changes.get("initialise") else {key: value for key, value in MODEL.items() if key != "units"},
    }
    return settings | changes


def translating(corpus: MadeCorpus, output: Path, system: str, initial: Path) -> dict[str, Any]:
    """Into other letters; SpeechLM's decoder is new."""
    part = {"manifest": str(corpus.sound), "task": "recognition", "written": "translation"}
    losses = {"attention": 1.0, "ctc": 0.0, "divisor": "tokens"}
    model: dict[str, Any] = {"losses": losses, "ctc_head": "none"} | ({"decoder": DECODER} if system == "speechlm" else {})
    fresh = ["vocabulary", "decoder"] if system == "speechlm" else ["vocabulary"]
    changes = {"sources": {"labelled": part}, "validation": part | {"split": "valid"}, "model": model, "fresh": fresh}
    decoding = {"method": "attention", "beam": 2, "max_length_ratio": 0.0, "max_length_extra": 10.0}
    return finetuning(corpus, output, system, initialise=str(initial), decoding=decoding, **changes)


@pytest.fixture(scope="module")
def pretrained(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pretrained")
    return {system: run(pretraining(corpus, folder / system, system, steps=4)) for system in ("speechlm", "speechut")}


def trainer(settings: dict[str, Any]) -> Trainer:
    return Trainer(config.load(TrainConfig, settings))


# Pre-training -------------------------------------------------------------------------------------------------------------------------


@both
def test_a_step_has_a_batch_of_every_source_and_is_divided_by_hidden_frames(corpus: MadeCorpus, tmp_path: Path, system: str) -> None:
    started = trainer(pretraining(corpus, tmp_path / "run", system))
    [(_, batches)] = started._draw(0, started.batches())
    assert [(batch.task, batch.text is None) for batch in batches] == [("speech", True), ("units", False), ("units", True)][: len(batches)]
    assert len(batches) == len(started.settings.sources)
    speech = batches[0].targets["units"]
    assert int(speech.min()) >= 4 or int(speech[speech >= 0].min()) >= 4  # behind the special symbols
    started.rounds(batches, torch.Generator().manual_seed(0))
    first = started.rounds.found[0]["masked_prediction"].count
    assert started.rounds.count() == first


@both
def test_pretraining_learns_from_speech_and_from_text(corpus: MadeCorpus, tmp_path: Path, system: str) -> None:
    settings = pretraining(corpus, tmp_path / "run", system, steps=60, log_every=20, save_every=60, optim={"lr": 0.003, "warmup": 0.1})
    lines = journal(run(settings))
    names = ["speech/masked_loss", "speech/shared_masked_loss", "units/ctc_loss"]
    names += ["units/nll", "units/units_masked_loss"] if system == "speechut" else []
    for name in names:
        assert lines[-1][name] < 0.97 * lines[0][name], name


@both
def test_the_vocabulary_is_that_of_the_texts_with_a_mask_symbol(pretrained: dict[str, Path], system: str) -> None:
    vocabulary = load_vocabulary(pretrained[system])
    assert vocabulary.symbols[-1] == "<mask>"
    assert checkpoint.load_config(pretrained[system])["model"]["vocabulary"] == len(vocabulary) == SYMBOLS
    model, inputs = systems.load_encoder(pretrained[system])
    assert inputs.first_unit == 4
    assert model.config.units == 11  # type: ignore[union-attr]


def test_letters_may_be_those_of_the_official_dictionary(corpus: MadeCorpus, tmp_path: Path) -> None:
    model = run(pretraining(corpus, tmp_path / "run", "speechut", steps=1, vocabulary="letters"))
    assert len(load_vocabulary(model)) == 33


@both
def test_a_run_stopped_between_checkpoints_repeats_the_lost_steps(corpus: MadeCorpus, tmp_path: Path, system: str) -> None:
    validation = {"manifest": str(corpus.sound), "task": "speech", "units": str(corpus.units), "split": "valid"}
    settings = pretraining(corpus, tmp_path, system, validation=validation, validate_every=4)
    whole = run(settings | {"output": str(tmp_path / "whole")})
    model = broken_and_resumed(settings | {"output": str(tmp_path / "broken")})
    assert same(model, whole)
    assert journal(model) == journal(whole)


@both
def test_text_can_be_left_out(corpus: MadeCorpus, tmp_path: Path, system: str) -> None:
    overrides = ["sources.text=null"] + (["sources.masked=null"] if system == "speechut" else [])
    model = train(config.load(TrainConfig, pretraining(corpus, tmp_path / "run", system, steps=2), overrides))
    assert not any(name.startswith("units/") for name in journal(model)[-1])
    tuned = run(finetuning(corpus, tmp_path / "tuned", system, initialise=str(model), steps=1))  # which makes the vocabulary
    assert len(load_vocabulary(tuned)) == SYMBOLS


# Fine-tuning --------------------------------------------------------------------------------------------------------------------------


@both
def test_recognition_takes_all_but_what_only_pretraining_needs(
    corpus: MadeCorpus, pretrained: dict[str, Path], tmp_path: Path, system: str
) -> None:
    settings = finetuning(corpus, tmp_path / "run", system, initialise=str(pretrained[system]), steps=2, validate_every=2, log_every=1)
    first, before = trainer(settings).model.state_dict(), weights(pretrained[system])
    heads = ("predictor.", "shared_predictor.", "unit_output.", "unit_embedding.")
    assert {name for name in before if name not in first} == {name for name in before if name.startswith(heads)}
    assert all(torch.equal(before[name], tensor) for name, tensor in first.items())
    model = run(settings)
    card = checkpoint.load_config(model)
    assert (card["task"], card["model"]["task"]) == ("transcription", "recognition")
    lines = journal(model)
    assert {"valid_wer", "valid_ctc_loss"} <= set(next(line for line in lines if "valid_wer" in line))
    assert (model.parent / "best" / "weights.safetensors").exists()
    result = evaluate(corpus.sound, model, ("a",), split="valid", decoding=["max_length_extra=5"] if system == "speechut" else [])
    assert result.conditions[0].rate.words > 0


@both
def test_translation_starts_what_belongs_to_the_old_letters_anew(
    corpus: MadeCorpus, pretrained: dict[str, Path], tmp_path: Path, system: str
) -> None:
    settings = translating(corpus, tmp_path / "run", system, pretrained[system]) | {"steps": 2, "validate_every": 2, "log_every": 1}
    started = trainer(settings)
    assert started.start.vocabulary is not None
    assert "F" in started.start.vocabulary.symbols
    before, first = weights(pretrained[system]), started.model.state_dict()
    anew = {name for name, tensor in first.items() if name not in before or not torch.equal(tensor, before[name])}
    assert all(name.startswith("decoder.") for name in anew)
    assert "decoder.embedding.weight" in anew
    assert ("decoder.layers.0.self_attention.query.weight" in anew) is (system == "speechlm")
    model = run(settings)
    assert any("valid_bleu" in line for line in journal(model))
    opened = systems.load(model)
    assert opened.decoding.method == "attention"


def test_recognition_learns_from_the_made_corpus(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = finetuning(corpus, tmp_path / "run", "speechut", steps=80, log_every=20, save_every=80, optim={"lr": 0.003, "warmup": 0.1})
    settings["model"] = settings["model"] | {"decoder": DECODER}
    lines = [line for line in journal(run(settings)) if "ctc_loss" in line]
    assert lines[-1]["nll"] < 0.9 * lines[0]["nll"]


@both
def test_every_run_is_planned_without_its_data(pretrained: dict[str, Path], tmp_path: Path, system: str) -> None:
    absent = MadeCorpus(*(Path("nowhere") / name for name in ("clips.jsonl", "sound.jsonl", "text.jsonl", "all.units")))
    found = plan(config.load(TrainConfig, pretraining(absent, tmp_path / "run", system)), device="h100")
    assert found.round_work > 0
    settings = finetuning(absent, tmp_path / "run", system, initialise=str(pretrained[system]))
    assert plan(config.load(TrainConfig, settings), device="h100").trained > 0


# What cannot work ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": {"a": {"manifest": "m", "task": "units"}}}, r"sources\.a\.units: missing; a pre-training source needs unit labels"),
        (
            {"model": {**MODEL, "decoder": DECODER, "units": 8}},
            "has unit 5, but the model predicts 8 units, counted from 0; .* clusters and 5 special symbols",
        ),
        ({"model": {**MODEL, "decoder": DECODER, "label_rate": 100.0}}, "have another rate than the model's label_rate"),
        ({"task": "generation"}, "gives no batches for a run whose task is 'generation'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_sentence(
    corpus: MadeCorpus, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(pretraining(corpus, tmp_path / "run", "speechut", **change))


def test_text_with_holes_and_units_are_for_other_systems(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = pretraining(corpus, tmp_path / "run", "speechlm")
    settings["sources"]["text"]["task"] = "infilling"
    with pytest.raises(ValueError, match=r"sources\.text\.task: infilling reads text, but model\.inputs is speech, units"):
        trainer(settings)


def test_a_text_without_units_is_named(corpus: MadeCorpus, tmp_path: Path) -> None:
    labels = dict(read_labels(corpus.units).items())
    del labels["text00"]
    write_labels(tmp_path / "few.units", labels)
    settings = pretraining(corpus, tmp_path / "run", "speechut")
    settings["sources"]["text"]["units"] = str(tmp_path / "few.units")
    with pytest.raises(ValueError, match=r"utterance 'text00' has no units in .*few\.units"):
        trainer(settings)


def test_an_official_translator_keeps_its_symbols_or_gets_others(corpus: MadeCorpus, tmp_path: Path) -> None:
    """Its dictionary has no <mask>; vocabularies that are made here have one."""
    (tmp_path / "dict.txt").write_text("".join(f"{symbol} 1\n" for symbol in ("\u2581", *"abcdef")), encoding="utf-8")
    decoder = replace(WRITER, max_positions=1024)
    official = made("speechlm", task="recognition", vocabulary=11, text_mask=False, decoder=decoder, ctc_head="none")
    folder = convert(fine_tuned_file(tmp_path, "speechlm_st_legacy", official), None, tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    changes: dict[str, Any] = {"initialise": str(folder), "decoding": {"method": "attention", "beam": 2}}
    kept = trainer(finetuning(corpus, tmp_path / "run", "speechlm", **changes)).start
    assert (kept.model.config.vocabulary, kept.model.config.text_mask) == (11, False)  # type: ignore[union-attr]
    assert torch.equal(kept.model.state_dict()["decoder.embedding.weight"], official.state_dict()["decoder.embedding.weight"])
    made_anew = trainer(finetuning(corpus, tmp_path / "other", "speechlm", **changes, fresh=["vocabulary"])).start
    assert (made_anew.model.config.vocabulary, made_anew.model.config.text_mask) == (SYMBOLS, True)  # type: ignore[union-attr]
    assert made_anew.vocabulary is not None
    assert made_anew.vocabulary.symbols[-1] == "<mask>"
