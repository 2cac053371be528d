"""Mixing of sources: exact shares, temperature, the official sampling, and what is refused."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm import config
from avtlm.config import ConfigError
from avtlm.data.batching import plan_batches
from avtlm.data.mixing import Mixer, MixingConfig, ShareOrder, temperature_shares
from avtlm.data.seeds import seed_for
from avtlm.training.loop import TrainConfig, Trainer
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import journal, pretraining, run, same


class Lengths:
    """A stream of batches without batches."""

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.lengths: Sequence[int] = torch.randint(10, 100, (count,), generator=generator).tolist()
        self.planned: Any = None

    def plan(self, epoch: int) -> list[list[int]]:
        return self.planned(epoch) if self.planned is not None else self.plan_rows(range(len(self.lengths)), epoch)

    def plan_rows(self, rows: Sequence[int], epoch: int) -> list[list[int]]:
        plan = plan_batches([self.lengths[row] for row in rows], 400, 8, torch.Generator().manual_seed(epoch))
        return [[rows[place] for place in batch] for batch in plan]


def streams(**counts: int) -> dict[str, Lengths]:
    return {name: Lengths(count, seed) for seed, (name, count) in enumerate(counts.items())}


def ones(names: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(names, 1.0)


def mixer(mixing: MixingConfig, seed: int = 1, **counts: int) -> Mixer:
    return Mixer(mixing, streams(**counts), ones(list(counts)), seed)


# Shares ---------------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=7), st.integers(0, 100))
def test_after_any_number_of_batches_every_source_has_its_share_rounded_up_or_down(weights: list[int], seed: int) -> None:
    order = ShareOrder([Fraction(weight) for weight in weights], seed)
    total, taken = sum(weights), [0] * len(weights)
    bound = Fraction(2 * len(weights) - 3, 2 * len(weights) - 2) if len(weights) > 1 else Fraction(0)
    for place in range(400):
        taken[order[place]] += 1
        for weight, count in zip(weights, taken, strict=True):
            assert abs(Fraction((place + 1) * weight, total) - count) <= bound


def test_given_shares_are_exact_over_an_epoch() -> None:
    mixed = mixer(MixingConfig("shares", {"a": 0.1, "b": 0.2, "c": 0.7}), a=10, b=10, c=10)
    for epoch in range(3):
        names = [name for step in range(100 * epoch, 100 * (epoch + 1)) for name in mixed.drawn(step)]
        assert Counter(names) == {"a": 10, "b": 20, "c": 70}


def test_shares_need_not_add_up_to_one() -> None:
    mixed = mixer(MixingConfig("shares", {"a": 3, "b": 1}), a=1, b=1)
    assert Counter(mixed.drawn(step)[0] for step in range(40)) == {"a": 30, "b": 10}


def test_at_temperature_one_an_epoch_of_the_mixture_is_one_pass_over_every_source() -> None:
    parts = streams(a=300, b=40, c=7)
    mixed = Mixer(MixingConfig("temperature"), parts, ones(list(parts)), 1)
    sizes = {name: len(stream.plan(0)) for name, stream in parts.items()}
    assert Counter(mixed.drawn(step)[0] for step in range(sum(sizes.values()))) == sizes


def test_temperature_raises_small_sources_up_to_equality() -> None:
    sizes = [1000, 100, 10]
    shares = {t: [float(share) for share in temperature_shares(sizes, t)] for t in (1, 2, 5, math.inf)}
    assert shares[1] == pytest.approx([1000 / 1110, 100 / 1110, 10 / 1110])
    roots = [math.sqrt(size) for size in sizes]
    assert shares[2] == pytest.approx([root / sum(roots) for root in roots], rel=1e-6)
    assert shares[1][2] < shares[2][2] < shares[5][2] < shares[math.inf][2]
    assert shares[math.inf] == pytest.approx([1 / 3] * 3, rel=1e-6)


def test_a_step_of_several_batches_goes_on_in_the_same_order() -> None:
    shares = {"a": 0.3, "b": 0.7}
    one = mixer(MixingConfig("shares", shares), a=1, b=1)
    three = mixer(MixingConfig("shares", shares, batches=3), a=1, b=1)
    assert [name for step in range(10) for name in three.drawn(step)] == [one.drawn(step)[0] for step in range(30)]


def test_the_order_depends_on_the_seed_and_the_step_alone() -> None:
    mixing = MixingConfig("shares", {"a": 1, "b": 1, "c": 1})
    orders = [[mixer(mixing, seed, a=1, b=1, c=1).drawn(step) for step in range(60)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    late = mixer(mixing, 1, a=1, b=1, c=1)
    assert [late.drawn(step) for step in range(59, -1, -1)] == orders[0][::-1]


# Weights and the official sampling ------------------------------------------------------------------------------------------------------


def test_by_default_a_step_takes_what_the_weights_draw_as_it_always_did() -> None:
    weights = {"a": 1.0, "b": 0.4, "c": 0.2}
    mixed = Mixer(MixingConfig(), streams(a=3, b=3, c=3), weights, 7)
    for step in range(50):
        draws = torch.rand(3, generator=torch.Generator().manual_seed(seed_for(7, "sources", step))).tolist()
        assert mixed.drawn(step) == [name for name, draw in zip("abc", draws, strict=True) if draw < weights[name]]


def test_official_sampling_draws_shares_of_all_utterances_and_cuts_to_the_shortest_list() -> None:
    parts = streams(av=50, pairs=100, text=400)
    shares = {"av": 0.5, "pairs": 0.1, "text": 0.3}
    mixed = Mixer(MixingConfig("sampled", shares), parts, ones(list(parts)), 1)
    assert mixed.drawn(0) == mixed.drawn(99) == ["av", "pairs", "text"]
    for epoch in (0, 1):
        whole = {name: parts[name].plan_rows(_drawn_rows(mixed, name, epoch), epoch) for name in parts}
        counts = {name: Counter(row for rows in plan for row in rows) for name, plan in whole.items()}
        assert {name: sum(count.values()) for name, count in counts.items()} == {"av": 275, "pairs": 55, "text": 165}
        assert sorted(set(counts["av"].values())) == [5, 6]  # 275 = five copies of 50, and 25 others
        assert set(counts["pairs"].values()) == {1}
        shortest = min(map(len, whole.values()))
        assert {name: stream.plan(epoch) for name, stream in parts.items()} == {name: plan[:shortest] for name, plan in whole.items()}
    assert parts["text"].plan(0) != parts["text"].plan(1)


def _drawn_rows(mixed: Mixer, name: str, epoch: int) -> list[int]:
    planned = mixed.streams[name].planned
    assert planned is not None
    return planned.func._rows(name, epoch)  # type: ignore[attr-defined, no-any-return]


# Runs -----------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 18)


def mixed_run(corpus: MadeCorpus, output: Path, mixing: dict[str, Any], **changes: Any) -> dict[str, Any]:
    run = pretraining(corpus, output, mixing=mixing, **changes)
    for source in run["sources"].values():
        source["weight"] = 1.0
    return run


@pytest.mark.parametrize(
    "mixing",
    [
        {"kind": "temperature", "temperature": 2, "batches": 2},
        {"kind": "sampled", "shares": {"audio_video": 0.1, "audio": 0.2, "audio_text": 0.5, "text": 0.3}},
    ],
    ids=["temperature", "sampled"],
)
def test_a_mixed_run_stopped_and_resumed_ends_bit_for_bit_like_one_never_stopped(
    corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixing: dict[str, Any]
) -> None:
    settings = {"steps": 10, "save_every": 4, "log_every": 2}
    whole = run(mixed_run(corpus, tmp_path / "whole", mixing, **settings))
    step = Trainer._step

    def stop(self: Trainer, number: int, *rest: Any) -> None:
        if number == 7:
            raise KeyboardInterrupt
        step(self, number, *rest)

    broken = mixed_run(corpus, tmp_path / "broken", mixing, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(broken)
    model = run(broken)
    assert same(model, whole)
    assert journal(model) == journal(whole)


# Refusals -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        ({"kind": "shares", "shares": {"a": -1}}, "shares.a: -1.0 is no share; give a number above 0"),
        ({"kind": "shares", "shares": {"a": 0}}, "shares.a: 0.0 is no share"),
        ({"kind": "shares", "shares": {"a": float("nan")}}, "shares.a: nan is no share"),
        ({"kind": "temperature", "temperature": 0}, "temperature: 0.0 is not above 0"),
        ({"kind": "temperature", "temperature": -2}, "temperature: -2.0 is not above 0"),
        ({"kind": "temperature", "batches": 0}, "batches: 0; a step needs at least 1"),
        ({"shares": {"a": 1}}, "shares: has no meaning for the mixing of kind 'weights'"),
        ({"kind": "shares", "shares": {"a": 1}, "temperature": 3}, "temperature: has no meaning for the mixing of kind 'shares'"),
        ({"kind": "sampled", "shares": {"a": 1}, "batches": 3}, "batches: has no meaning for the mixing of kind 'sampled'"),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_one_sentence(mixing: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(MixingConfig, mixing)
    assert message in str(caught.value)
    assert str(caught.value).count(". ") == 0


def test_shares_of_other_sources_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mixing\.shares\.b: missing; give one share for each of a, b"):
        mixer(MixingConfig("shares", {"a": 1}), a=1, b=1)
    with pytest.raises(ValueError, match=r"mixing\.shares\.c: there is no such source; give one share for each of a, b"):
        mixer(MixingConfig("shares", {"a": 1, "b": 1, "c": 1}), a=1, b=1)
    with pytest.raises(ValueError, match=r"mixing\.shares\.a: 0\.01 of 4 utterances is less than one"):
        mixer(MixingConfig("sampled", {"a": 0.01, "b": 1}), a=2, b=2)


def test_weights_beside_shares_are_refused_before_the_run(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = pretraining(corpus, tmp_path, mixing={"kind": "temperature"})
    with pytest.raises(ConfigError, match=r"sources.audio.weight: 0.6 has no meaning beside mixing of kind 'temperature'"):
        config.load(TrainConfig, settings)
