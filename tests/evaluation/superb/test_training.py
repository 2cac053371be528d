"""A training that was stopped goes on to the same result, the best head of dev is kept, and every draw comes from the seed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm.evaluation.superb.cache import CachedStates, Piece
from avtlm.evaluation.superb.classification import ClassificationConfig, KeywordSpotting, SpeakerIdentification
from avtlm.evaluation.superb.data import Corpus
from avtlm.evaluation.superb.features import FilterBank
from avtlm.evaluation.superb.training import Training
from tests.evaluation.superb import made_corpora

CONFIG: dict[str, Any] = {"steps": 8, "batch": 4, "lr": 0.01, "evaluate_every": 2, "projection": 8, "crop_seconds": 0.3}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.read(made_corpora.save_simple(tmp_path_factory.mktemp("made") / "data", "KS"))


def training(corpus: Corpus, folder: Path, **changes: Any) -> Training:
    states = CachedStates(FilterBank(), corpus.folder.parent / "cache")
    task = KeywordSpotting(corpus, ClassificationConfig(**CONFIG | changes))
    return Training(task, states, folder, "cpu", "made", task.choice)


def test_stopped_and_resumed_is_as_never_stopped(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training(corpus, tmp_path / "whole")
    curve = whole.run()
    broken = training(corpus, tmp_path / "broken")
    plain = broken._look

    def stop(loss: float) -> None:
        plain(loss)
        if broken.state.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(broken, "_look", stop)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed = training(corpus, tmp_path / "broken")
    assert resumed.state.step == 4
    assert resumed.run().to_json() == curve.to_json()
    for name, tensor in whole.probe.state_dict().items():
        assert torch.equal(tensor, resumed.probe.state_dict()[name]), name


def test_the_head_that_is_best_on_dev_is_kept(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([50.0, 70.0, 70.0, 60.0])
    run = training(corpus, tmp_path / "run")
    kept: dict[int, torch.Tensor] = {}

    def evaluate(split: str) -> dict[str, float]:
        kept[run.state.step] = run.probe.head.output.weight.detach().clone()  # type: ignore[union-attr]
        return {"accuracy": next(found)}

    monkeypatch.setattr(run, "evaluate", evaluate)
    assert run.run().best == 4  # the first of two equals
    assert torch.equal(run.probe.head.output.weight, kept[4])  # type: ignore[union-attr, arg-type]


def test_another_seed_is_another_training_in_another_folder(corpus: Corpus, tmp_path: Path) -> None:
    first = training(corpus, tmp_path / "run", steps=2)
    first.run()
    assert not torch.equal(first.probe.head.output.weight, training(corpus, tmp_path / "b", seed=1).probe.head.output.weight)  # type: ignore[union-attr, arg-type]
    with pytest.raises(ValueError, match="with other settings, data or weights"):
        training(corpus, tmp_path / "run", steps=2, seed=1)


def test_long_clips_are_cropped_to_other_places_in_each_epoch(corpus: Corpus, tmp_path: Path) -> None:
    run = training(corpus, tmp_path / "run")
    clip = corpus.split("train")[0]
    pieces = [run._piece(clip, 400, 30, epoch) for epoch in range(6)]
    assert {piece.count for piece in pieces} == {30}
    assert len({piece.first for piece in pieces}) > 3
    assert max(piece.first for piece in pieces) <= 370
    assert run._piece(clip, 30, 30, 0) == Piece(clip)


def test_balanced_draws_show_every_class_alike_and_plain_ones_every_clip_once(corpus: Corpus) -> None:
    rows = list(corpus.split("train"))
    uneven = corpus.with_clips({"train": (*rows[:3], *(clip for clip in rows if clip.fields["label"] == "low"))})
    task = KeywordSpotting(uneven, ClassificationConfig(**CONFIG | {"batch": 1}))
    drawn = [row for epoch in range(200) for batch in task.plan([1] * 6, epoch) for row in batch]
    low = sum(task.labels(uneven.split("train")[row]) == ["low"] for row in drawn)
    assert abs(low / len(drawn) - 1 / 3) < 0.05
    assert task.plan([1] * 6, 0) == task.plan([1] * 6, 0)
    plain = SpeakerIdentification(uneven, ClassificationConfig(**CONFIG | {"batch": 1}))
    assert sorted(row for batch in plain.plan([1] * 6, 0) for row in batch) == list(range(6))


def test_accumulated_batches_are_one_update_of_their_mean(corpus: Corpus, tmp_path: Path) -> None:
    one = training(corpus, tmp_path / "one", steps=1, batch=4, accumulation=2, crop_seconds=None, clip_norm=1e9)
    plan = one.task.plan([1] * 9, 0)
    pieces = [[Piece(corpus.split("train")[row]) for row in batch] for batch in plan[:2]]
    one.states.prepare(corpus.split("train"))
    losses = [one.task.loss(one.probe.head, one._heard(part), torch.Generator()) for part in pieces]
    expected = sum(float(loss.value.detach() / loss.count) for loss in losses) / 2
    one.run()
    assert one.curve.loss[1] == pytest.approx(expected, rel=1e-5)
