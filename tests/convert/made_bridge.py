"""Official files of SpeechLM and SpeechUT for tests: tiny models in the container of fairseq's trainer, with their classes' options."""

from collections import OrderedDict
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.unit_bridge import PREFIXES, Bridge, bridge_rules
from avtlm.convert.official_file import container, dictionary, save
from avtlm.systems.speechut import SpeechUT, SpeechUTConfig, SpeechUTLosses
from avtlm.systems.unit_bridge import UnitBridge
from avtlm.text.vocabulary import SPECIALS
from tests.systems.bridge_models import DECODER, SPEECHLM, UNIT_ENCODER, speechlm

UNITS = [*SPECIALS, *map(str, range(6)), "<mask>"]
LETTERS = [*SPECIALS, *"|ABCD", "<mask>"]
# Official tables of distances have one size.
ENCODERS: dict[str, Any] = {
    "encoder": replace(SPEECHLM.encoder, key_distance=160),
    "unit_encoder": replace(UNIT_ENCODER, key_distance=160),
    "swap": replace(SPEECHLM.mask, prob=0.25, length=1),
}
WRITER = replace(DECODER, key_distance=24)
HALF = {
    "_name": None,
    "embed_path": None,
    "embed_dim": 16,
    "ffn_embed_dim": 16,
    "layers": 2,
    "attention_heads": 2,
    "normalize_before": False,
    "layerdrop": 0.0,
    "layers_to_keep": None,
}
TEXTS: dict[str, Any] = {
    "_name": None,
    "activation_fn": "${model.activation_fn}",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "adaptive_input": False,
    "encoder": {**HALF, "learned_pos": True},
    "decoder": {**HALF, "learned_pos": False, "input_dim": 16, "output_dim": 16},
    "max_source_positions": 40,
    "max_target_positions": 2048,
    "share_decoder_input_output_embed": False,
    "share_all_embeddings": False,
    "no_token_positional_embeddings": False,
    "adaptive_softmax_cutoff": None,
    "layernorm_embedding": True,
    "no_scale_embedding": True,
    "no_cross_attention": False,
    "cross_self_attention": False,
    "quant_noise": {"_name": None, "pq": 0.0, "pq_block_size": 8, "scalar": 0.0},
    "char_inputs": False,
}
MODEL: dict[str, Any] = {
    "label_rate": "${task.label_rate}",
    "extractor_mode": "default",
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 16,
    "encoder_attention_heads": 2,
    "activation_fn": "gelu",
    "layer_type": "transformer",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "dropout_input": 0.0,
    "dropout_features": 0.1,
    "final_dim": 4,
    "untie_final_proj": True,
    "layer_norm_first": False,
    "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
    "conv_bias": False,
    "logit_temp": 0.1,
    "target_glu": False,
    "feature_grad_mult": 1.0,
    "mask_length": 3,
    "mask_prob": 0.5,
    "mask_selection": "static",
    "mask_other": 0.0,
    "no_mask_overlap": False,
    "mask_min_space": 1,
    "mask_channel_length": 64,
    "mask_channel_prob": 0.0,
    "mask_channel_selection": "static",
    "mask_channel_other": 0.0,
    "no_mask_channel_overlap": False,
    "mask_channel_min_space": 1,
    "conv_pos": 4,
    "conv_pos_groups": 2,
    "latent_temp": [2.0, 0.5, 0.999995],
    "skip_masked": False,
    "skip_nomask": False,
    "checkpoint_activations": False,
    "required_seq_len_multiple": 2,
    "use_rel_pos_enc": True,
    "scaling_for_att": 1.0,
    "add_unit_encoder": True,
    "add_text_ctc": True,
    "text_ctc_conv_kernel": 2,
    "mix_with_unit": True,
    "use_pred_unit": False,
    "l2_embedding": False,
    "encoder_dict_size": -1,
    "decoder_dict_size": -1,
}
OWN: dict[Bridge, dict[str, Any]] = {
    "speechlm": {"add_decoder": False, "mask_u2t": True, "compute_mum": False},
    "speechut": {"add_decoder": True, "mask_u2t": False, "reset_decoder_embedding_config": True},
}
CRITERIA: dict[Bridge, dict[str, Any]] = {
    "speechlm": {"_name": "speechlm_criterion", "loss_weights": [0.1], "text_ctc_weight": 0.5, "text_mum_weight": 0.0},
    "speechut": {"_name": "speechut_criterion", "loss_weights": [0.1], "u2t_ed_weight": 0.2, "u2t_ctc_weight": 0.3, "text_mum_weight": 0.5},
}
TUNING: dict[str, Any] = {
    "w2v_path": "/path/to/pretrained.pt",
    "no_pretrained_weights": False,
    "dropout_input": 0.0,
    "final_dropout": 0.0,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.1,
    "apply_mask": True,
    "mask_length": 10,
    "mask_prob": 0.65,
    "mask_selection": "static",
    "mask_other": 0,
    "no_mask_overlap": False,
    "mask_channel_length": 64,
    "mask_channel_prob": 0.5,
    "mask_channel_selection": "static",
    "mask_channel_other": 0,
    "no_mask_channel_overlap": False,
    "freeze_finetune_updates": 0,
    "feature_grad_mult": 0.0,
    "layerdrop": 0.1,
    "normalize": "${task.normalize}",
    "autoregressive": False,
}
WRITING: dict[str, Any] = {
    "activation_fn": "gelu",
    "use_rel_pos_enc": True,
    "encoder_embed_dim": 16,
    "decoder_embed_dim": 16,
    "decoder_output_dim": 16,
    "decoder_ffn_embed_dim": 16,
    "decoder_layers": 2,
    "decoder_layerdrop": 0.0,
    "decoder_attention_heads": 2,
    "decoder_learned_pos": False,
    "decoder_normalize_before": False,
    "no_token_positional_embeddings": False,
    "decoder_dropout": 0.3,
    "decoder_attention_dropout": 0.0,
    "decoder_activation_dropout": 0.0,
    "share_decoder_input_output_embed": False,
    "input_feat_per_channel": None,
    "input_channels": None,
    "speaker_to_id": None,
}


def made(system: Bridge, **changes: Any) -> Any:
    """A tiny model whose settings an official file can hold."""
    if system == "speechlm":
        return speechlm(**{**ENCODERS, **changes})
    shared = {field.name: getattr(SPEECHLM, field.name) for field in fields(SPEECHLM)} | ENCODERS
    losses = SpeechUTLosses(feature_penalty=0.1, attention=0.2, ctc=0.3, units=0.5, label_smoothing=0.0)
    model = SpeechUT(SpeechUTConfig(**{**shared, "decoder": WRITER, "losses": losses, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def official_state(model: UnitBridge, system: Bridge, prefix: str = "") -> dict[str, Tensor]:
    """Weights by official names, with the copies and leftovers of official files."""
    rules = bridge_rules(system, model.config.waveform.norm)
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(("entrance.", "shared_predictor.glu.")):
            state[find_key(rules, name)] = tensor
    if "unit_embed_tokens.weight" in state:
        state["unit_encoder.embed_tokens.weight"] = state["unit_embed_tokens.weight"]
    stacks = {"encoder": model.config.encoder, "unit_encoder": model.config.unit_encoder, "decoder": model.config.decoder}
    for stack, settings in stacks.items():
        if settings is None or settings.norm_first:
            continue
        width = settings.dim // settings.heads
        for layer in range(settings.layers):
            state |= {f"{stack}.layers.{layer}.norm_k.{part}": torch.ones(width) for part in ("weight", "bias")}
    state["unit_encoder.version"] = torch.tensor([3.0])
    if model.decoder is not None:
        state |= {"decoder.version": torch.tensor([3.0]), "decoder.embed_positions._float_tensor": torch.zeros(1)}
    if not prefix:
        return state
    own = system == "speechlm"  # whose decoder stands beside the pre-trained model, not in it
    head = "unit_encoder_ctc_head."
    if model.config.ctc_head == "own" and not model.config.ctc_kernel:  # the head of fine-tuning alone, a linear layer
        last = "unit_encoder_ctc_head.5."
        state = {key.replace(last, head): tensor for key, tensor in state.items()}
        proj = {f"{prefix.split('.')[0]}.proj.{key.removeprefix(head)}": state.pop(key) for key in [*state] if key.startswith(head)}
        return {prefix + key: tensor for key, tensor in state.items()} | proj
    fine = {key if own and key.startswith("decoder.") else prefix + key: tensor for key, tensor in state.items()}
    outer = prefix.split(".")[0]
    return fine | {f"{outer}.proj.{key.removeprefix(head)}": tensor for key, tensor in state.items() if key.startswith(head)}


def pretrained_cfg(system: Bridge, **changes: Any) -> dict[str, Any]:
    texts = {**TEXTS, **changes.pop("text_transformer", {})}
    return {
        "_name": None,
        "common": {"seed": 1, "fp16": True},
        "task": {"_name": "joint_sc2t_pretraining", "label_rate": 50, "sample_rate": 16000, "normalize": False},
        "model": {"_name": system, **MODEL, **OWN[system], "text_transformer": texts, **changes},
        "criterion": {"pred_masked_weight": 1.0, "pred_nomask_weight": 0.0, "log_keys": [], **CRITERIA[system]},
    }


def pretrained_file(folder: Path, system: Bridge, model: UnitBridge, **changes: Any) -> Path:
    """As the trainer writes it, with its dictionaries."""
    states = {
        "text_src_dictionary": dictionary([*SPECIALS, *(f"P{number}" for number in range(6)), "<mask>"]),
        "text_dictionary": dictionary(LETTERS),
        "dictionaries": [dictionary(UNITS)],
        "hubert_tokenizer": None,
    }
    return save(container(pretrained_cfg(system, **changes), official_state(model, system), states), folder / f"{system}.pt")


def fine_tuned_file(
    folder: Path,
    name: str,
    model: UnitBridge,
    origin: dict[str, Any] | None = None,
    target: list[str] | None = None,
    criterion: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Of one of the official fine-tuned models by its name; ``origin``: what it tells of the pre-trained one."""
    system: Bridge = "speechlm" if name.startswith("speechlm") else "speechut"
    prefix = PREFIXES[0] if name == "speechlm_ctc" else PREFIXES[1]
    writing = WRITING if name == "speechlm_st_legacy" else {}
    options = {"_name": name, "w2v_args": origin, **TUNING, **writing, **changes}
    if name == "speechut_asr":
        options |= {"add_decoder": True}
    cfg = {
        "_name": None,
        "task": {"_name": "joint_sc2t_pretraining", "fine_tuning": True, "normalize": False},
        "model": options,
        "criterion": {"_name": "ctc", "label_smoothing": 0.1, "zero_infinity": True, **(criterion or {})},
    }
    states = {} if target is None else {"target_dictionary": dictionary(target)}
    return save(container(cfg, official_state(model, system, prefix), states), folder / f"{name}.pt")


def cleaned_file(folder: Path, model: UnitBridge) -> Path:
    """For features alone: without units, CTC, dictionaries and most of the configuration."""
    dropped = ("label_embs_list.", "unit_embed_tokens.", "unit_encoder.embed_tokens.", "unit_encoder_ctc_head.")
    state = {key: tensor for key, tensor in official_state(model, "speechlm").items() if not key.startswith(dropped)}
    options = {**MODEL, **OWN["speechlm"], "text_transformer": {**TEXTS, "activation_fn": "gelu"}, "label_rate": 50}
    return save({"cfg": {"model": options}, "model": OrderedDict(state)}, folder / "cleaned.pt")
