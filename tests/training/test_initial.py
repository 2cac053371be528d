"""What a run starts with: weights, sizes, phones and lips of an initial model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avtlm import config
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.recognizer import Recognizer
from avtlm.systems import load, load_encoder
from avtlm.training.loop import TrainConfig, Trainer
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import MODEL, pretraining, recognition, run, weights


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


def test_fine_tuning_starts_from_the_pretrained_encoder_and_may_change_its_dropout(corpus: MadeCorpus, tmp_path: Path) -> None:
    initial = run(pretraining(corpus, tmp_path / "initial", steps=2))
    heads = {"encoder": {"encoder": {"dropout": 0.3}}}
    trainer = Trainer(config.load(TrainConfig, recognition(corpus, tmp_path / "run", initialise=str(initial), model=heads)))
    assert isinstance(trainer.model, Recognizer)
    encoder, _ = load_encoder(initial)
    assert trainer.model.encoder.config.encoder.dropout == 0.3  # type: ignore[union-attr]
    assert trainer.model.encoder.config.encoder.dim == 32  # type: ignore[union-attr]
    ours = trainer.model.encoder.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in encoder.state_dict().items())


def test_a_second_iteration_takes_the_encoder_and_makes_a_new_head(corpus: MadeCorpus, tmp_path: Path) -> None:
    initial = run(pretraining(corpus, tmp_path / "initial", steps=2))
    wider = MODEL | {"units": 9}
    with pytest.raises(ValueError, match="do not fit this model"):
        run(pretraining(corpus, tmp_path / "second", initialise=str(initial), model=wider))
    settings = pretraining(corpus, tmp_path / "second", initialise=str(initial), model=wider, fresh=["predictor"], steps=1)
    trainer = Trainer(config.load(TrainConfig, settings))
    assert torch.equal(trainer.model.state_dict()["frontends.audio.weight"], weights(initial)["frontends.audio.weight"])


def test_phones_of_the_initial_model_keep_their_places_and_travel_on(corpus: MadeCorpus, tmp_path: Path) -> None:
    first = run(pretraining(corpus, tmp_path / "first", steps=1))
    known = (first / "phones.txt").read_text().split()
    # The same table in another order, as a model trained on other texts would have it.
    turned = [*known[:4], *reversed(known[4:])]
    (first / "phones.txt").write_text("\n".join(turned) + "\n")
    second = run(pretraining(corpus, tmp_path / "second", steps=1, initialise=str(first)))
    assert (second / "phones.txt").read_text().split() == turned
    tuned = run(recognition(corpus, tmp_path / "tuned", steps=1, initialise=str(second), model={"dropout": 0.0}))
    assert (tuned / "phones.txt").read_text().split() == turned


def cut_as(corpus: MadeCorpus, folder: Path, geometries: list[str]) -> Path:
    manifest = read_manifest(corpus.clips)
    rows = [replace(row, extra={"geometry": geometries[i % len(geometries)]}) for i, row in enumerate(manifest)]
    write_manifest(folder / "manifest.jsonl", Manifest(corpus.clips.parent, tuple(rows)))
    return folder / "manifest.jsonl"


def test_a_model_notes_how_the_lips_of_its_clips_were_cut(corpus: MadeCorpus, tmp_path: Path) -> None:
    clips = cut_as(corpus, tmp_path / "cut", ["auto_avsr"])
    sources = {"labelled": {"manifest": str(clips), "task": "recognition"}}
    model = run(recognition(corpus, tmp_path / "run", steps=1, sources=sources))
    assert load(model).geometry == "auto_avsr"


def test_lips_cut_in_different_ways_do_not_mix(corpus: MadeCorpus, tmp_path: Path) -> None:
    clips = cut_as(corpus, tmp_path / "cut", ["auto_avsr", "avhubert"])
    sources = {"labelled": {"manifest": str(clips), "task": "recognition"}}
    with pytest.raises(ValueError, match=r"cut in different ways \(auto_avsr in .* but avhubert in"):
        run(recognition(corpus, tmp_path / "run", steps=1, sources=sources))
