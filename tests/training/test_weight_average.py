"""A moving average of the weights: what it is, where it stands, and that it survives a stop."""

from pathlib import Path

import pytest
import torch
from torch import nn

from avtlm import checkpoint, systems
from avtlm.training.averaging import average
from avtlm.training.weight_average import WeightAverage
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import pretraining, recognition, run, same, weights


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


def test_the_average_follows_the_weights() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    kept = WeightAverage(model, 0.75)
    wanted = model.weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            model.weight += torch.randn_like(model.weight)
        kept.update()
        wanted = 0.75 * wanted + 0.25 * model.weight.detach()
    assert torch.allclose(kept.weights["weight"], wanted, rtol=1e-6)
    again = WeightAverage(model, 0.75)
    again.load({name: value.clone() for name, value in kept.weights.items()} | {"a_buffer": torch.zeros(1)})
    assert all(torch.equal(again.weights[name], value) for name, value in kept.weights.items())


def test_a_run_keeps_a_loadable_average_beside_its_model(corpus: MadeCorpus, tmp_path: Path) -> None:
    model = run(recognition(corpus, tmp_path / "run", steps=4, ema=0.5, validate_every=2, average=2))
    averaged = systems.load(model / "ema")
    assert averaged.vocabulary.symbols == systems.load(model).vocabulary.symbols
    ours, theirs = weights(model), weights(model / "ema")
    assert ours.keys() == theirs.keys()
    assert not torch.equal(ours["ctc.weight"], theirs["ctc.weight"])
    name = "encoder.frontends.lips.stem_norm.running_mean"
    assert torch.equal(ours[name], theirs[name])
    assert not (model / "ema" / "trainer").exists()
    assert not (model.parent / "best" / "ema").exists()
    mean = average([model, model.parent / "best"], tmp_path / "mean")
    assert not (mean / "ema").exists()
    assert checkpoint.load_config(model / "ema") == checkpoint.load_config(model)


def test_an_average_turned_on_later_starts_from_the_weights_of_that_moment(corpus: MadeCorpus, tmp_path: Path) -> None:
    run(pretraining(corpus, tmp_path / "run", steps=2))
    before = weights(tmp_path / "run" / "model")
    model = run(pretraining(corpus, tmp_path / "run", steps=3, ema=0.5))
    after, mean = weights(model), weights(model / "ema")
    for name in ("predictor.units", "encoder.layers.0.self_attention.query.weight"):
        assert torch.allclose(mean[name], (before[name] + after[name]) / 2, atol=1e-7)
    assert not same(model, model / "ema")


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
def test_impossible_decays_are_refused(corpus: MadeCorpus, tmp_path: Path, decay: float) -> None:
    with pytest.raises(ValueError, match=r"ema: .*give a decay between 0 and 1"):
        run(pretraining(corpus, tmp_path / "run", ema=decay))
