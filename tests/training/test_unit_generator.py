"""Text-to-unit models are trained by `avtlm train`: they learn a made corpus, go on where they were stopped, and keep their lexicon."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import config, systems
from avtlm.checkpoint import load_config
from avtlm.plain_yaml import read_yaml
from avtlm.text.vocabulary import Vocabulary
from avtlm.training.initial import merged
from avtlm.training.loop import TrainConfig
from avtlm.units.generators import open_generator
from avtlm.units.labels import read_labels, write_labels
from avtlm.units.reduced import reduce_units
from tests.made_corpus import LETTERS, MadeCorpus, make_corpus
from tests.test_configs import ROOT
from tests.training.made_runs import broken_and_resumed, journal, run, same

MODELS: dict[str, dict[str, Any]] = {
    "fast_text2unit": {
        **{"units": 6, "label_rate": 25, "dim": 16, "layers": 1, "unit_layers": 1, "feed_forward_dim": 32, "kernel": 3},
        **{"duration_dim": 16, "duration_dropout": 0.0, "dropout": 0.0, "attention_dropout": 0.0},
    },
    "text2unit": {
        **{"units": 6, "label_rate": 25, "dim": 32, "layers": 1, "decoder_layers": 1, "heads": 4, "feed_forward_dim": 64},
        **{"dropout": 0.0, "attention_dropout": 0.0, "norm_first": True, "max_units": 30},
    },
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 36)


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every letter is a word and a phone."""
    path = tmp_path_factory.mktemp("lexicon") / "letters.txt"
    path.write_text("".join(f"{letter} {letter}\n" for letter in LETTERS))
    return path


def settings(corpus: MadeCorpus, output: Path, system: str, pronunciation: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    source = {"manifest": str(corpus.sound), "task": "text_to_units", "units": str(corpus.units)}
    return {
        "system": system,
        "task": "text_to_units",
        "output": str(output),
        "sources": {"paired": source},
        "validation": {**source, "split": "valid"},
        "model": MODELS[system] | ({} if pronunciation is None else {"pronunciation": pronunciation}),
        **{"steps": 12, "max_rows": 8, "log_every": 3, "save_every": 4, "validate_every": 12, "threads": 1, "tensorboard": False},
        "optim": {"lr": 0.01, "schedule": "cosine", "weight_decay": 0.0, "clip_norm": 2.0},
    } | changes


def read_by(lexicon: Path) -> dict[str, Any]:
    return {"lexicon": str(lexicon), "unknown": "drop", "silence": "a", "silence_probability": 0.0}


def test_the_fast_model_learns_phones_and_their_durations(corpus: MadeCorpus, lexicon: Path, tmp_path: Path) -> None:
    folder = run(settings(corpus, tmp_path / "run", "fast_text2unit", read_by(lexicon), steps=150, validate_every=75, save_every=150))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    measured = [line["valid_unit_accuracy"] for line in lines if "valid_unit_accuracy" in line]
    assert measured[-1] > 0.9  # of six units
    (units,) = open_generator(folder)(["c e b"], ["x"])
    assert units is not None
    said, durations = reduce_units(units)
    assert "".join(LETTERS[unit] for unit in said.tolist()) == "aceba"  # with a silence, here an a, at both ends
    assert all(3 <= duration <= 7 for duration in durations.tolist())  # each letter lasts five frames


def test_the_fast_model_keeps_its_lexicon_and_needs_no_other_file(corpus: MadeCorpus, lexicon: Path, tmp_path: Path) -> None:
    folder = run(settings(corpus, tmp_path / "run", "fast_text2unit", read_by(lexicon), steps=2, validate_every=0))
    assert load_config(folder)["model"]["pronunciation"]["lexicon"] == "lexicon.txt"
    assert (folder / "lexicon.txt").read_text() == lexicon.read_text()
    moved = folder.rename(tmp_path / "moved")
    model, vocabulary = systems.load_text2unit(moved)
    assert vocabulary == Vocabulary.tokens([" ".join(LETTERS)])
    assert model.config.vocabulary == 10  # type: ignore[union-attr]
    assert open_generator(moved)(["a zebra"], ["x"]) == [None]


def test_the_autoregressive_model_learns_reduced_units_from_characters(corpus: MadeCorpus, tmp_path: Path) -> None:
    folder = run(settings(corpus, tmp_path / "run", "text2unit", None, steps=250, validate_every=250, save_every=250))
    labels = read_labels(corpus.units)
    texts = {
        name: "".join(LETTERS[unit] for unit in reduce_units(row)[0].tolist()) for name, row in labels.items() if name.startswith("sound")
    }
    names = sorted(texts)[:12]
    found = open_generator(folder)([texts[name] for name in names], names)
    right = sum(
        row is not None and "".join(LETTERS[unit] for unit in row.tolist()) == texts[name] for name, row in zip(names, found, strict=True)
    )
    assert right >= 6  # letters that stand twice are one unit, which here are left out


@pytest.mark.parametrize("system", list(MODELS))
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(system: str, corpus: MadeCorpus, lexicon: Path, tmp_path: Path) -> None:
    one = run(settings(corpus, tmp_path / "one", system, read_by(lexicon)))
    two = broken_and_resumed(settings(corpus, tmp_path / "two", system, read_by(lexicon)))
    assert same(one, two)
    assert journal(one) == journal(two)


def test_a_run_can_start_from_another_of_the_same_phones(corpus: MadeCorpus, lexicon: Path, tmp_path: Path) -> None:
    first = run(settings(corpus, tmp_path / "one", "fast_text2unit", read_by(lexicon), steps=4, validate_every=0))
    again = settings(corpus, tmp_path / "two", "fast_text2unit", read_by(lexicon), steps=1, initialise=str(first), validate_every=0)
    second = run(again | {"optim": {"lr": 1e-9}})
    one, two = (systems.load_text2unit(folder)[0].state_dict() for folder in (first, second))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


@pytest.mark.parametrize(
    ("system", "pronunciation", "changes", "reason"),
    [
        ("fast_text2unit", {"silence": "SIL"}, {}, r"pronunciation.silence: 'SIL' is none of the phones of the training data \(a, b"),
        ("fast_text2unit", {"silence": "a", "lexicon": "none.txt"}, {}, r"none\.txt"),
        ("fast_text2unit", {"silence": "a"}, {"task": "pretrain"}, "the systems fast_text2unit and text2unit belong together"),
        ("fast_text2unit", {"silence": "a"}, {"compile": True}, "a model of text has none; set false"),
        ("text2unit", None, {"model": MODELS["text2unit"] | {"units": 4}}, "has unit 5, but the model predicts 4 units"),
        ("text2unit", None, {"model": MODELS["text2unit"] | {"label_rate": 50}}, "the labels belong to other media, or have another rate"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(
    system: str, pronunciation: Any, changes: dict[str, Any], reason: str, corpus: MadeCorpus, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        run(settings(corpus, tmp_path / "run", system, pronunciation, **changes))


def test_rows_without_phones_are_said_to_be_unaligned(corpus: MadeCorpus, tmp_path: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    rows = [json.loads(line) for line in corpus.sound.read_text().splitlines()]
    bare.write_text("".join(json.dumps({key: row[key] for key in row if key != "phones"}) + "\n" for row in rows))
    made = settings(corpus, tmp_path / "run", "fast_text2unit", {"silence": "a"})
    made["sources"]["paired"]["manifest"] = str(bare)
    with pytest.raises(ValueError, match="no row has phones, which this model reads; align the corpus"):
        run(made)


@pytest.mark.parametrize("path", sorted((ROOT / "text2unit").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_trains_at_a_small_size(path: Path, corpus: MadeCorpus, lexicon: Path, tmp_path: Path) -> None:
    data = read_yaml(path)
    small = MODELS[data["system"]] | {"units": data["model"]["units"], "label_rate": data["model"]["label_rate"]}
    data["model"] = merged(data["model"], small | {"pronunciation": {"lexicon": str(lexicon), "silence": "a", "unknown": "drop"}})
    data |= {"output": str(tmp_path / "run"), "steps": 2, "log_every": 1, "save_every": 2, "validate_every": 2, "workers": 0, "threads": 1}
    data |= {"precision": "fp32", "accumulate": 1, "tensorboard": False}
    labels = tmp_path / "fast.units"
    write_labels(labels, {name: row.repeat(2) for name, row in read_labels(corpus.units).items()})
    for source in (*data["sources"].values(), data["validation"]):
        source |= {"manifest": str(corpus.sound), "units": str(labels)}
    assert open_generator(run(config.to_dict(config.load(TrainConfig, data)))).symbols[-1] == str(data["model"]["units"] - 1)
