"""Activation checkpointing and compilation change what a step costs, not what it computes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import config, systems
from avtlm.nn.transformer import Encoder, EncoderConfig
from avtlm.training import layers
from avtlm.training.layers import missing_compiler, prepare_layers, trained_layers
from tests.made_corpus import MadeCorpus, make_corpus
from tests.nn.zipformer.made_zipformer import features, zipformer
from tests.training import test_speech_systems as speech
from tests.training.made_runs import MODEL, journal, pretraining, run, same, weights

STILL = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "layer_drop"), 0.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


def test_computing_layers_again_gives_the_same_run_with_dropout_bit_for_bit(corpus: MadeCorpus, tmp_path: Path) -> None:
    encoder = MODEL["encoder"] | {"dropout": 0.2, "attention_dropout": 0.2, "activation_dropout": 0.1}
    settings = {"model": MODEL | {"encoder": encoder}, "steps": 4, "log_every": 1}
    plain, again = (
        run(pretraining(corpus, tmp_path / str(on), activation_checkpointing=on, precision="bf16", **settings)) for on in (False, True)
    )
    assert same(plain, again)
    assert journal(plain) == journal(again)


def kept_bytes(encoder: Encoder, x: torch.Tensor) -> int:
    """Size of what a forward pass keeps for the gradient."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        encoder(x, torch.full((len(x),), x.shape[1]))
    return sum(kept.values())


def test_less_is_kept_for_the_gradient() -> None:
    torch.manual_seed(0)
    settings = EncoderConfig(dim=32, layers=4, heads=2, feed_forward_dim=128, position_kernel=6, position_groups=4, **STILL)
    encoder, x = Encoder(settings), torch.randn(2, 50, 32, requires_grad=True)
    before = kept_bytes(encoder, x)
    prepare_layers(encoder, recompute=True, compiled=False)
    assert kept_bytes(encoder, x) < 0.4 * before


def test_teachers_are_left_alone() -> None:
    system = systems.find("mt4ssl")
    model = system.build(config.load(system.config_class(), speech.MODELS["mt4ssl"]))
    chosen = trained_layers(model)
    assert len(chosen) == speech.ENCODER["layers"]
    assert {id(layer) for layer in chosen} == {id(layer) for layer in model.encoder.layers}  # type: ignore[union-attr]
    prepare_layers(model, recompute=True, compiled=False)
    assert all("forward" not in vars(layer) for layer in model.teacher.encoder.layers)  # type: ignore[union-attr]
    assert all("forward" in vars(layer) for layer in model.encoder.layers)  # type: ignore[union-attr]


def test_compiling_without_a_compiler_is_refused(corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"compile: true, but there is no C\+\+ compiler \(no-such-compiler\); install one, or set"):
        run(pretraining(corpus, tmp_path / "run", compile=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(missing_compiler() is not None, reason="torch.compile needs a C++ compiler, and there is none here")
@pytest.mark.parametrize("changes", [{}, {"activation_checkpointing": True}])
def test_compiled_layers_train_like_plain_ones(corpus: MadeCorpus, tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = {"model": MODEL | {"encoder": MODEL["encoder"] | STILL}, "steps": 4, "log_every": 1}
    plain = run(pretraining(corpus, tmp_path / "plain", **settings))
    compiled = run(pretraining(corpus, tmp_path / "compiled", compile=True, **settings, **changes))
    for ours, theirs in zip(journal(plain), journal(compiled), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-5)
    for name, value in weights(plain).items():
        assert torch.allclose(value.float(), weights(compiled)[name].float(), atol=1e-4), name
    assert layers.trained_layers(systems.load_encoder(compiled)[0])


def test_layers_of_a_zipformer_computed_again_drop_the_same_and_keep_less() -> None:
    def step(recompute: bool) -> tuple[list[torch.Tensor], int]:
        model = zipformer().train()
        prepare_layers(model, recompute, compiled=False)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "attention_weights" in name:
                    weight.mul_(20.0)  # so that scores are charged
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(2)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = model(features(3, 203), torch.tensor([203, 150, 90]))
        assert out.penalty is not None
        assert out.penalty.item() > 0
        (out.frames.square().sum() + out.penalty).backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None], sum(kept.values())

    (plain, much), (again, little) = step(False), step(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert little < 0.8 * much  # most is that of the convolutions before the layers
    if missing_compiler() is None:
        with pytest.raises(ValueError, match="a Zipformer decides in every layer what it drops"):
            prepare_layers(zipformer(), recompute=False, compiled=True)
