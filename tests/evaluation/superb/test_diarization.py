"""Activities are those of the segments at any rate, and the error is that of the best filter and threshold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from avtlm.evaluation.superb.data import Clip, Corpus, CorpusError
from avtlm.evaluation.superb.diarization import DiarizationConfig, SpeakerDiarization
from avtlm.evaluation.superb.task import Heard


class Given(nn.Module):
    """Gives its features out as logits."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def clip(*segments: list[object]) -> Clip:
    return Clip("a", Path("a.wav"), fields={"segments": list(segments)}, place="rows, line 1")


def task() -> SpeakerDiarization:
    return SpeakerDiarization(Corpus(Path("made"), "SD", "made"), DiarizationConfig())


def heard(features: torch.Tensor, of: Clip, rate: float) -> Heard:
    return Heard(features, torch.tensor([features.shape[1]]), (of,), (0,), rate)


TURNS = clip(["ann", 0.0, 0.4], ["bob", 0.3, 0.8])


def test_activity_follows_the_segments_from_any_frame_on() -> None:
    whole = task().activity(TURNS, 50.0, 50)
    assert whole[:, 0].nonzero()[0].tolist() == list(range(20))
    assert whole[:, 1].nonzero()[0].tolist() == list(range(15, 40))
    np.testing.assert_array_equal(task().activity(TURNS, 50.0, 20, first=12), whole[12:32])


@pytest.mark.parametrize("rate", [25.0, 50.0, 100.0])
def test_right_activities_have_no_error_at_any_rate_and_order(rate: float) -> None:
    active = torch.from_numpy(task().activity(TURNS, rate, round(rate))).float()[None].flip(2)
    found = task().evaluate(Given(), [heard(8 * active - 4, TURNS, rate)], "test")
    assert found["DER"] == 0.0 or rate == 25.0  # whose frames of 40 ms end between those that are compared
    assert found["DER"] < 7.0
    assert found["DER at 0.5"] >= found["DER"]


def test_errors_are_counted_by_the_time_of_all_speakers() -> None:
    active = torch.from_numpy(task().activity(TURNS, 100.0, 100)).float()[None]
    active[0, :20, 0] = 0.0  # 0.2 s of 0.9 s are missed
    found = task().evaluate(Given(), [heard(8 * active - 4, TURNS, 100.0)], "test")
    assert found["DER"] == pytest.approx(100 * 0.2 / 0.9)


def test_the_best_threshold_and_filter_are_told() -> None:
    active = torch.from_numpy(task().activity(TURNS, 100.0, 100)).float()[None]
    logits = torch.where(active > 0, 0.4, -0.3)  # probabilities 0.6 and 0.43
    logits[0, 60, 0] = 3.0  # a click
    found = task().evaluate(Given(), [heard(logits, TURNS, 100.0)], "test")
    assert (found["DER"], found["median"]) == (0.0, 11.0)
    assert found["threshold"] == 0.5
    assert found["DER at 0.5"] > 0


def test_what_is_said_behind_the_last_frame_is_missed() -> None:
    active = torch.from_numpy(task().activity(TURNS, 100.0, 60)).float()[None]
    found = task().evaluate(Given(), [heard(8 * active - 4, TURNS, 100.0)], "test")
    assert found["DER"] == pytest.approx(100 * 0.2 / 0.9)


def test_wrong_segments_are_named() -> None:
    with pytest.raises(CorpusError, match="rows, line 1: a has more than 2 speakers"):
        task().activity(clip(["a", 0, 1], ["b", 0, 1], ["c", 0, 1]), 50.0, 50)
    with pytest.raises(CorpusError, match=r"rows, line 1: a has segments = .* give a list of \[speaker, start, end\]"):
        task().activity(clip(["a", 0]), 50.0, 50)
    silent = clip()
    with pytest.raises(CorpusError, match="nobody speaks in any clip of test"):
        task().evaluate(Given(), [heard(torch.zeros(1, 10, 2), silent, 50.0)], "test")
