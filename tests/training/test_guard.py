"""Losses that jump are skipped like those that are not finite, and named."""

import math
from pathlib import Path

import pytest
import torch

from avtlm.data.batching import Batch
from avtlm.objectives.loss import Loss
from avtlm.systems.vatlm import VATLM
from avtlm.training.guard import FIRST_JUDGED, Guard
from avtlm.training.state import TrainState
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import journal, pretraining, run, weights


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


def test_a_spike_is_what_is_far_above_the_running_mean_of_good_steps() -> None:
    guard = Guard(state := TrainState(), spike=3.0, most=4, run="run")
    assert all(guard.fault(1.0, 100.0 if step == 3 else 2.0) is None for step in range(FIRST_JUDGED))
    mean = state.mean_loss
    assert mean == pytest.approx((2.0 * (FIRST_JUDGED - 1) + 100.0) / FIRST_JUDGED)
    assert guard.fault(1.0, 3.1 * mean) == f"the loss is {3.1 * mean:.3g}, more than 3 times its running mean of {mean:.3g}"
    assert state.mean_loss == mean
    assert guard.fault(1.0, 2.9 * mean) is None
    assert state.mean_loss > mean
    assert guard.fault(math.nan, 1.0) == "the loss or its gradient is not finite"
    assert Guard(TrainState(mean_loss=1.0, good_steps=99), spike=None, most=4, run="run").fault(1.0, None) is None


def spiky(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """From some step on, losses are a thousand times what they are."""
    losses, calls = VATLM.losses, [0]

    def raised(self: VATLM, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        found = losses(self, batch, generator)
        calls[0] += 1
        if calls[0] > first:
            found["masked_prediction"].value = found["masked_prediction"].value * 1000
        return found

    monkeypatch.setattr(VATLM, "losses", raised)


def test_spikes_change_nothing_name_their_utterances_and_stop_the_run_in_the_end(
    corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = {"audio": {"manifest": str(corpus.sound), "task": "audio", "units": str(corpus.units)}}
    settings = {"sources": source, "spike": 5.0, "max_bad_steps": 3, "save_every": 1, "log_every": 1}
    good = run(pretraining(corpus, tmp_path / "good", steps=12, **settings))
    spiky(monkeypatch, 12)
    with pytest.raises(FloatingPointError, match="loss far above its mean in 3 steps in a row, last at step 14 with utterance sound"):
        run(pretraining(corpus, tmp_path / "bad", steps=20, optim={"schedule": "constant", "warmup": 0.0, "lr": 1e-3}, **settings))
    assert caplog.text.count("more than 5 times its running mean") == 3
    assert "nothing was changed. Utterances: sound" in caplog.text
    bad = tmp_path / "bad" / "model"
    assert max(line["loss"] for line in journal(bad) if "loss" in line) < 10
    assert [line["step"] for line in journal(bad) if "loss" in line] == list(range(1, 13))
    assert weights(good).keys() == weights(bad).keys()


@pytest.mark.parametrize("change", [{"spike": 1.0}, {"spike": -2.0}])
def test_impossible_factors_are_refused(corpus: MadeCorpus, tmp_path: Path, change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"spike: .*give a factor above 1"):
        run(pretraining(corpus, tmp_path / "run", **change))
