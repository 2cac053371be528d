"""Cases of transformers' speech models made here, with the library itself: what the adapter makes of options that stored cases lack."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.replay import Report, replay
from tests.convert import made_transformers as made

TOLERANCE = {"forward": 1e-5, "gradients": 1e-4}
FIRST_CONVOLUTION = "feature_extractor.conv_layers.0.conv.weight"


def write(folder: Path, model: torch.nn.Module, values: dict[str, object], inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Report:
    """A case of this model, replayed."""
    folder.mkdir()
    description = {"official_class": f"transformers.{type(model).__name__}", "config": {"hf": values}, "tolerance": TOLERANCE}
    (folder / "case.json").write_text(json.dumps(description))
    for name, tensors in (("inputs", inputs), ("outputs", outputs), ("state", model.state_dict())):
        save_file({key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    return replay(folder, "case")


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "data2vec"])
def test_ctc_losses_and_all_gradients_are_those_of_transformers_where_options_keep_their_defaults(tmp_path: Path, kind: str) -> None:
    quiet = {name: 0.0 for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop")}
    model = made.make(kind, "ForCTC", **quiet)
    model.config._attn_implementation = "eager"
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([2400, 1900])
    mask = (torch.arange(2400) < lengths[:, None]).long()
    inputs = {"input_values": torch.randn(2, 2400, generator=generator) * mask, "attention_mask": mask}
    inputs["labels"] = torch.tensor([[3, 5, 4], [6, -100, -100]])
    found = model(**inputs)
    found.loss.backward()
    outputs = {"ctc.logits": found.logits, "ctc.loss": found.loss}
    first = f"{model.base_model_prefix}.{FIRST_CONVOLUTION}"
    for name, parameter in model.named_parameters():
        if name in (first, "lm_head.weight") or name.endswith("layers.1.feed_forward.output_dense.weight"):
            outputs[f"grad.{name}"] = parameter.grad
    assert len(outputs) == 5
    report = write(tmp_path / "case", model, made.KINDS[kind][1] | quiet, inputs, outputs)
    assert report.passed, report.failure or [(each.name, each.error) for each in report.comparisons if not each.passed]
    assert set(outputs) == {each.name for each in report.comparisons}
