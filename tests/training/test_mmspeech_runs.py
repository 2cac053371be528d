"""MMSpeech through the whole loop: speech with codes, phonemes of texts and pairs in one step; fine-tuning; and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtlm import cli, config, systems
from avtlm.data.manifest import read_manifest
from avtlm.evaluation.evaluate import evaluate
from avtlm.plain_yaml import read_yaml
from avtlm.plan import plan
from avtlm.text.vocabulary import load_vocabulary
from avtlm.training.initial import build, merged
from avtlm.training.loop import TrainConfig, Trainer
from avtlm.units.labels import read_labels, write_labels
from tests.made_corpus import LETTERS, MadeCorpus, make_corpus
from tests.test_configs import ROOT, read
from tests.training.made_runs import broken_and_resumed, journal, run, same, weights, with_units_at_50_hz

SIZES = {"dim": 16, "heads": 2, "feed_forward_dim": 24}
MODEL: dict[str, Any] = {
    "encoder": {**SIZES, "layers": 3, "position_kernel": 0, "layer_drop": 0.1},
    "decoder": {**SIZES, "layers": 2, "max_positions": 64, "distance_buckets": 8},
    "speech_layers": 1,
    "position_kernel": 9,
    "position_groups": 4,
    "position_blocks": 3,
    "codes": 6,
    "phones": 6,
    "spare_phones": 0,
    "mask": {"prob": 0.5, "length": 3, "min_spans": 1},
    "paired_mask": {"prob": 0.3, "length": 3, "min_spans": 1},
}
SYMBOLS = 4 + 1 + 6 + 2  # special ones, the space, a to f, <mask> and <blank>


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    """Every letter is its own phoneme."""
    folder = tmp_path_factory.mktemp("corpus")
    made = with_units_at_50_hz(make_corpus(folder, 24), folder)
    rows = [row for path in (made.sound, made.text) for row in read_manifest(path)]
    said = {row.id: np.array([LETTERS.index(letter) for letter in row.transcript or ""], dtype=np.int32) for row in rows}
    write_labels(folder / "phonemes.units", said)
    return made


def phonemes(corpus: MadeCorpus) -> str:
    return str(corpus.units.with_name("phonemes.units"))


def pretraining(corpus: MadeCorpus, output: Path, **changes: Any) -> dict[str, Any]:
    settings = {
        "system": "mmspeech",
        "task": "pretrain",
        "output": str(output),
        "sources": {
            "speech": {"manifest": str(corpus.sound), "task": "speech", "units": str(corpus.units)},
            "text": {"manifest": str(corpus.text), "task": "units", "units": phonemes(corpus), "max_frames": 200, "weight": 0.5},
            "pairs": {"manifest": str(corpus.sound), "task": "recognition", "phonemes": phonemes(corpus), "limit": 8, "weight": 0.5},
        },
        "model": MODEL,
        "steps": 8,
        "max_rows": 4,
        "log_every": 2,
        "save_every": 4,
        "threads": 1,
        "tensorboard": False,
        "optim": {"lr": 0.003, "schedule": "linear", "clip_norm": 5.0},
    }
    return settings | changes


def finetuning(corpus: MadeCorpus, output: Path, **changes: Any) -> dict[str, Any]:
    source = {"manifest": str(corpus.sound), "task": "recognition", "phonemes": phonemes(corpus)}
    settings = pretraining(corpus, output) | {
        "task": "transcription",
        "sources": {"labelled": source},
        "validation": source | {"split": "valid"},
        "decoding": {"method": "attention", "beam": 2, "max_length_ratio": 0.0, "max_length_extra": 10.0},
        "model": {} if changes.get("initialise") else {key: value for key, value in MODEL.items() if key != "codes"},
    }
    return settings | changes


@pytest.fixture(scope="module")
def pretrained(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(pretraining(corpus, tmp_path_factory.mktemp("pretrained") / "run"))


def test_a_step_has_all_three_kinds_and_is_divided_by_sentences(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = pretraining(corpus, tmp_path / "run")
    for source in settings["sources"].values():
        source["weight"] = 1.0
    started = Trainer(config.load(TrainConfig, settings))
    [(_, batches)] = started._draw(0, started.batches())
    assert [batch.task for batch in batches] == ["speech", "units", "recognition"]
    assert set(batches[2].targets) == {"tokens", "phones"}
    assert int(batches[2].targets["phones"].max()) <= 9
    assert {int(phone) for phone in batches[1].text_units.flatten()} <= {1, 2, *range(4, 10)}  # type: ignore[union-attr]
    started.rounds(batches, torch.Generator().manual_seed(0))
    assert started.rounds.count() == sum(len(batch) for batch in batches)


def test_pretraining_learns_all_five_tasks(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = pretraining(corpus, tmp_path / "run", steps=80, log_every=20, save_every=80)
    lines = journal(run(settings))
    for name in ("speech/s2c_nll", "units/p2t_nll", "recognition/s2t_nll", "recognition/pp_ctc_loss"):
        assert lines[-1][name] < 0.97 * lines[0][name], name
    assert lines[-1]["speech/msp_divergence"] >= 0
    assert lines[-1]["speech/msp_teacher_deviation"] > 0


def test_a_resumed_run_equals_one_that_never_stopped(corpus: MadeCorpus, tmp_path: Path, pretrained: Path) -> None:
    assert same(broken_and_resumed(pretraining(corpus, tmp_path / "run"), 6), pretrained)


def test_fine_tuning_starts_from_pre_training_without_its_codes_and_writes(corpus: MadeCorpus, tmp_path: Path, pretrained: Path) -> None:
    start = build(config.load(TrainConfig, finetuning(corpus, tmp_path / "run", initialise=str(pretrained))))
    before, after = weights(pretrained), start.model.state_dict()
    assert after["decoder.embedding.weight"].shape == (SYMBOLS, 16)
    assert torch.equal(after["decoder.embedding.weight"], before["decoder.embedding.weight"][:SYMBOLS])
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items() if name != "decoder.embedding.weight")
    assert start.vocabulary is not None
    assert start.vocabulary.symbols == load_vocabulary(pretrained).symbols
    trained = run(finetuning(corpus, tmp_path / "trained", initialise=str(pretrained), steps=6, save_every=6))
    assert systems.load(trained).heads.start == 0
    rates = evaluate(corpus.sound, trained, ("a",), split="valid", limit=2)
    assert rates


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("text", {"units": "units"}, None),
        ("speech", {"units": None}, r"sources\.speech\.units: missing"),
        ("pairs", {"phonemes": None, "weight": 1.0}, "no phonemes beside its transcript"),
        ("pairs", {"task": "audio", "phonemes": None}, "gives no batches that mmspeech learns from"),
        ("text", {"phonemes": "x.units"}, "phonemes: x.units for units; only recognition names them"),
    ],
)
def test_sources_that_do_not_fit_are_refused(
    corpus: MadeCorpus, tmp_path: Path, source: str, changes: dict[str, Any], message: str | None
) -> None:
    settings = pretraining(corpus, tmp_path / "run", steps=2)
    settings["sources"][source] |= changes
    if message is None:
        high = tmp_path / "high.units"
        write_labels(high, {name: row + 9 for name, row in read_labels(phonemes(corpus)).items()})
        settings["sources"]["text"]["units"] = str(high)
        message = "but the model predicts 10 units"
    with pytest.raises(ValueError, match=message):
        run(settings)


def test_phonemes_have_to_be_there_for_every_pair_and_among_those_of_the_model(corpus: MadeCorpus, tmp_path: Path) -> None:
    few = tmp_path / "few.units"
    write_labels(few, {"sound00": np.array([1], dtype=np.int32)})
    settings = pretraining(corpus, tmp_path / "run")
    settings["sources"]["pairs"] |= {"phonemes": str(few)}
    with pytest.raises(ValueError, match=r"few.units: no phonemes of utterance"):
        run(settings)
    settings = pretraining(corpus, tmp_path / "other", model=MODEL | {"phones": 3})
    settings["sources"].pop("text")
    with pytest.raises(ValueError, match=r"sources\.pairs\.phonemes: has phoneme 5, but the model knows 3; set model.phones"):
        run(settings)


def test_the_command_line_says_mandarin_lines_in_phonemes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("中国\n你好\n", encoding="utf-8")
    command = ["units", "text2units", str(text), "-o", str(tmp_path / "text.units"), "--alphabet", "mandarin"]
    assert cli.main(command) == 0
    labels = read_labels(tmp_path / "text.units")
    symbols = [line.split()[0] for line in (tmp_path / "text.dict.txt").read_text().splitlines()]
    assert [" ".join(symbols[unit] for unit in row) for row in labels.values()] == ["zh o1 ng g uo2", "n i3 h ao3"]
    text.write_text("中国\nABC你好\n", encoding="utf-8")
    assert cli.main(command) == 1
    error = capsys.readouterr().err
    assert (
        error == "avtlm: line 'text-2': has the Latin letter 'A', which has no phonemes; write it in characters, or leave the text out.\n"
    )
    assert cli.main([*command, "--unknown", "drop"]) == 0
    assert cli.main([*command, "--reduced"]) == 2


def test_characters_are_counted_in_place_of_words(corpus: MadeCorpus, pretrained: Path, tmp_path: Path) -> None:
    model = run(finetuning(corpus, tmp_path / "run", initialise=str(pretrained), steps=1, save_every=1))
    shared: dict[str, Any] = {"split": "valid", "limit": 2}
    [words], [characters] = (evaluate(corpus.sound, model, ("a",), **shared, characters=kind).conditions for kind in (False, True))
    rows = [row for row in read_manifest(corpus.sound) if row.split == "valid"][:2]
    assert words.rate.words == 2
    assert characters.rate.words == sum(len(row.transcript or "") for row in rows)
    assert evaluate(corpus.sound, model, ("a",), **shared, characters=True).to_json()["unit"] == "characters"


def test_a_pretraining_can_be_planned(corpus: MadeCorpus, tmp_path: Path) -> None:
    planned = plan(config.load(TrainConfig, pretraining(corpus, tmp_path / "run")))
    assert planned.parameters > 0
    assert planned.round_work > 0


def shrunk(path: Path, corpus: MadeCorpus, output: Path) -> dict[str, Any]:
    """A configuration with the sizes and the data of these tests; all else as it stands."""
    small = {"steps": 2, "log_every": 1, "save_every": 2, "workers": 0, "threads": 1, "precision": "fp32", "max_rows": 2, "accumulate": 2}
    settings: dict[str, Any] = merged(read_yaml(path), small | {"output": str(output)})
    if settings["task"] == "pretrain":
        settings["model"] = merged(settings["model"], MODEL)
    for source in [*settings["sources"].values(), *([settings["validation"]] if "validation" in settings else [])]:
        of_text = source["task"] == "units"
        source |= {"manifest": str(corpus.text if of_text else corpus.sound), "min_seconds": 0.2}
        if "units" in source:
            source["units"] = phonemes(corpus) if of_text else str(corpus.units)
        if "phonemes" in source:
            source["phonemes"] = phonemes(corpus)
    if settings["task"] == "transcription":
        settings |= {"validate_every": 1, "decoding": settings["decoding"] | {"max_length_extra": 10.0}}
    return settings


def test_every_configuration_runs_from_the_model_it_names(corpus: MadeCorpus, tmp_path: Path) -> None:
    found: dict[str, Path] = {}
    paths = {path.stem: path for path in (ROOT / "mmspeech").glob("*.yaml")}
    order = (
        "base_text",
        "base",
        "large",
        "finetune_aishell1",
        "tiny_text",
        "tiny_pretrain",
        "tiny_finetune",
    )  # first what others start from
    assert set(paths) == set(order)
    for name in order:
        settings = shrunk(paths[name], corpus, tmp_path / name)
        if "initialise" in settings:
            settings["initialise"] = str(found[settings["initialise"]])
        found[f"{read(paths[name]).output}/model"] = run(settings)
    assert systems.load(found["runs/mmspeech_finetune_aishell1/model"]).decoding.no_repeat_ngram == 5
