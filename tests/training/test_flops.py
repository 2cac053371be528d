"""Useful operations are those that PyTorch counts of the same step where there is no padding, and padding adds nothing to them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from avtlm import config
from avtlm.data.batching import Batch
from avtlm.data.dataset import collate
from avtlm.data.seeds import seed_for
from avtlm.training.flops import UsefulWork
from avtlm.training.loop import TrainConfig, Trainer
from tests.made_corpus import MadeCorpus, make_corpus
from tests.nn.zipformer.made_zipformer import features, zipformer
from tests.training import made_runs
from tests.training.test_speech_systems import MODELS
from tests.training.test_speech_systems import pretraining as speech


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture(scope="module")
def fast_units(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return made_runs.with_units_at_50_hz(corpus, tmp_path_factory.mktemp("units"))


def still(model: dict[str, Any]) -> dict[str, Any]:
    """Settings without what drops layers at random, and with positional convolutions of one group and an odd kernel: PyTorch counts the
    weight gradients of grouped ones as if they had no groups, and the last frame of even ones, which is thrown away."""
    encoder = model["encoder"]
    kernel = encoder["position_kernel"]
    return model | {"encoder": encoder | {"layer_drop": 0.0, "position_groups": 1, "position_kernel": kernel - 1 + kernel % 2}}


def batch_of(run: Trainer, source: str, rows: int) -> Batch:
    dataset = run.streams[source].dataset
    return collate([dataset.item(row) for row in range(rows)], dataset.source.task)


def step(run: Trainer, batch: Batch, work: UsefulWork) -> float:
    """The useful operations of one forward and backward pass, the same masks and dropout every time."""
    torch.manual_seed(seed_for("flops"))
    with work.counting(batch):
        losses = run.model.losses(batch, torch.Generator().manual_seed(0))  # type: ignore[operator]
    torch.stack([loss.value for loss in losses.values()]).sum().backward()
    return float(work.take())


def compare(run: Trainer, batch: Batch) -> tuple[float, float]:
    work = UsefulWork(run.model)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        mine = step(run, batch, work)
    return mine, float(counter.get_total_flops())


@pytest.mark.parametrize("system", MODELS)
def test_one_clip_costs_what_pytorch_counts_in_every_system_over_waveforms(system: str, fast_units: MadeCorpus, tmp_path: Path) -> None:
    run = Trainer(config.load(TrainConfig, speech(fast_units, tmp_path, system, model=still(MODELS[system]))))
    mine, counted = compare(run, batch_of(run, "audio", 1))
    assert mine == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("task", ["audio_video", "audio", "audio_text", "text"])
@pytest.mark.parametrize("experts", [(), ("audio", "video", "joint")], ids=["plain", "experts"])
def test_one_clip_of_any_kind_costs_what_pytorch_counts_in_vatlm(
    corpus: MadeCorpus, tmp_path: Path, task: str, experts: tuple[str, ...]
) -> None:
    model = still(made_runs.MODEL)
    model["encoder"] |= {"experts": list(experts)}
    run = Trainer(config.load(TrainConfig, made_runs.pretraining(corpus, tmp_path, model=model)))
    mine, counted = compare(run, batch_of(run, task, 1))
    assert mine == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("ctc_weight", [1.0, 0.3])
def test_a_recogniser_costs_what_pytorch_counts_with_and_without_a_decoder(corpus: MadeCorpus, tmp_path: Path, ctc_weight: float) -> None:
    heads: dict[str, Any] = {"encoder": still(made_runs.MODEL), "ctc_weight": ctc_weight, "modality_dropout": 0.0}
    if ctc_weight < 1:
        heads["decoder"] = made_runs.DECODER
    run = Trainer(config.load(TrainConfig, made_runs.recognition(corpus, tmp_path, model=heads)))
    mine, counted = compare(run, batch_of(run, "labelled", 1))
    assert mine == pytest.approx(counted, rel=0.01)


def test_a_language_model_costs_what_pytorch_counts(corpus: MadeCorpus, tmp_path: Path) -> None:
    model = {"dim": 32, "layers": 2, "heads": 2, "feed_forward_dim": 48}
    source = {"manifest": str(corpus.clips), "task": "sentences"}
    settings = {"system": "language_model", "task": "language_model", "output": str(tmp_path), "model": model, "sources": {"text": source}}
    run = Trainer(config.load(TrainConfig, settings))
    mine, counted = compare(run, batch_of(run, "text", 1))
    assert mine == pytest.approx(counted, rel=0.01)


def test_a_frozen_encoder_costs_one_pass(corpus: MadeCorpus, tmp_path: Path) -> None:
    heads = {"encoder": still(made_runs.MODEL), "modality_dropout": 0.0, "freeze_encoder_steps": 10}
    run = Trainer(config.load(TrainConfig, made_runs.recognition(corpus, tmp_path, model=heads)))
    mine, counted = compare(run, batch_of(run, "labelled", 1))
    assert mine == pytest.approx(counted, rel=0.01)
    run.model.start_step(10, 20)  # type: ignore[operator]
    assert compare(run, batch_of(run, "labelled", 1))[0] > 2 * mine


@pytest.mark.parametrize("packing", ["always", "never"])
@pytest.mark.parametrize("kind", ["pretrain", "recognition"])
def test_clips_cost_the_same_together_and_alone(fast_units: MadeCorpus, tmp_path: Path, kind: str, packing: str) -> None:
    model = still(MODELS["hubert"])
    # Everything is in the loss, so that what is hidden makes no difference.
    model |= {"visible_weight": 1.0, "encoder": model["encoder"] | {"packing": packing}}
    settings = speech(fast_units, tmp_path, "hubert", model=model)
    if kind == "recognition":
        heads = {"encoder": model, "ctc_weight": 0.5, "decoder": made_runs.DECODER}
        source = {"manifest": str(fast_units.sound), "task": "recognition"}
        settings |= {"task": "recognition", "model": heads, "sources": {"audio": source}}
    run = Trainer(config.load(TrainConfig, settings))
    dataset, work = run.streams["audio"].dataset, UsefulWork(run.model)
    items = [dataset.item(row) for row in range(4)]
    assert len({len(item.audio) for item in items if item.audio is not None}) > 1
    together = step(run, collate(items, dataset.source.task), work)
    alone = sum(step(run, collate([item], dataset.source.task), work) for item in items)
    # Decoders count attention by mean shares of padding.
    assert together == pytest.approx(alone, rel=0.02 if kind == "recognition" else 0.005)


def test_recomputed_and_compiled_layers_count_once_and_nothing_counts_outside(corpus: MadeCorpus, tmp_path: Path) -> None:
    found = []
    for recompute in (False, True):
        settings = made_runs.pretraining(corpus, tmp_path, model=still(made_runs.MODEL), activation_checkpointing=recompute)
        run = Trainer(config.load(TrainConfig, settings))
        work = UsefulWork(run.model)
        found.append(step(run, batch_of(run, "audio_video", 2), work))
    assert found[0] == found[1] > 0
    run.model.losses(batch_of(run, "audio", 2), torch.Generator())  # type: ignore[operator]
    assert work.take() == 0
    work.remove()
    assert step(run, batch_of(run, "audio", 2), work) == 0


@pytest.mark.parametrize("causal", [False, True])
def test_a_zipformer_costs_what_pytorch_counts_and_padding_nothing(causal: bool) -> None:
    model = zipformer(causal=causal).train()
    model.batch_count = 1e6
    work, lengths = UsefulWork(model), torch.tensor([203, 120])
    sound = features(2, 203)

    def cost(rows: slice, frames: int) -> tuple[float, float]:
        batch = Batch(("a", "b")[rows], "audio", audio=sound[rows, :frames], audio_lengths=lengths[rows])
        with FlopCounterMode(display=False) as counter, work.counting(batch):
            out = model(sound[rows, :frames], lengths[rows], -1 if causal else None)
        return float(work.take()), 3.0 * counter.get_total_flops() * bool(out.lengths.sum())

    mine, counted = cost(slice(0, 1), 203)
    # PyTorch adds the scores of twice as many distances as there are keys, and no gradient of the features.
    assert mine == pytest.approx(counted, rel=0.05)
    alone = mine + cost(slice(1, 2), 120)[0]
    assert cost(slice(0, 2), 203)[0] == pytest.approx(alone, rel=0.05)
