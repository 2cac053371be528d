"""Cases of transformers' speech models made here, with the library itself: what the adapter makes of options that stored cases lack."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from avtlm.convert.names.wav2vec2 import FairseqLayout, fairseq_key, hugging_face_name
from benchmarks.replay import Report, replay
from tests.convert import made_transformers as made

TOLERANCE = {"forward": 1e-5, "gradients": 1e-4}
QUIET = {name: 0.0 for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop")}
FIRST_CONVOLUTION = "feature_extractor.conv_layers.0.conv.weight"


def write(
    folder: Path, official: str, config: dict[str, Any], inputs: dict[str, Tensor], outputs: dict[str, Tensor], state: dict[str, Tensor]
) -> Report:
    """A case, replayed."""
    folder.mkdir()
    description = {"official_class": official, "config": config, "tolerance": TOLERANCE}
    (folder / "case.json").write_text(json.dumps(description))
    for name, tensors in (("inputs", inputs), ("outputs", outputs), ("state", state)):
        save_file({key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    return replay(folder, "case")


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "data2vec"])
def test_ctc_losses_and_all_gradients_are_those_of_transformers_where_options_keep_their_defaults(tmp_path: Path, kind: str) -> None:
    model = made.make(kind, "ForCTC", **QUIET)
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
    values = {"hf": made.KINDS[kind][1] | QUIET}
    report = write(tmp_path / "case", f"transformers.{type(model).__name__}", values, inputs, outputs, model.state_dict())
    assert report.passed, report.failure or [(each.name, each.error) for each in report.comparisons if not each.passed]
    assert set(outputs) == {each.name for each in report.comparisons}


def test_a_fine_tuned_hubert_with_a_batch_norm_before_its_positions_has_its_gradients_under_the_names_of_fairseq(tmp_path: Path) -> None:
    model = made.make("hubert batch norm", "ForCTC", **QUIET)
    inputs = {"source": torch.randn(2, 2400, generator=torch.Generator().manual_seed(1)), "target": torch.tensor([[5, 4, 6], [6, 7, 1]])}
    found = model(inputs["source"], labels=inputs["target"].masked_fill(inputs["target"] == 1, -100))
    found.loss.backward()

    def name(key: str) -> str:
        return fairseq_key(hugging_face_name(key, ctc=True), "hubert", FairseqLayout(batch_norm=True), fine_tuned=True)

    outputs = {"encoder_out": found.logits.transpose(0, 1), "loss": found.loss}
    outputs |= {f"grad.{name(key)}": each.grad for key, each in model.named_parameters() if "pos_conv_embed" in key and "weight" in key}
    assert {"grad.w2v_encoder.w2v_model.encoder.pos_conv.0.weight", "grad.w2v_encoder.w2v_model.encoder.pos_conv.1.weight"} < set(outputs)
    options = {
        **{"_name": "hubert", "label_rate": 50, "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2", "encoder_layers": 2},
        **{"encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_attention_heads": 2, "conv_pos": 6, "conv_pos_groups": 2},
        "conv_pos_batch_norm": True,
    }
    state = {name(key): tensor for key, tensor in model.state_dict().items()}
    report = write(tmp_path / "case", "fairseq.models.hubert.hubert_asr.HubertCtc", {"w2v_model": options}, inputs, outputs, state)
    assert report.passed, report.failure or [(each.name, each.error) for each in report.comparisons if not each.passed]
