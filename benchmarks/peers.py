"""HuBERT for pre-training in other libraries, with the weights and the losses of ours, so that a step can be timed beside ours.

Each is given the same clips, masks and units, and returns the same objective: the cross-entropy of hidden frames over units, by cosine, and
the penalty on the size of the features. What `transformers` has no part for (masked prediction) is taken from this library.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.convert.names.wav2vec2 import fairseq_name, hugging_face_name
from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.attention import padding_mask
from avtlm.objectives.masked_prediction import masked_prediction_loss
from avtlm.systems.hubert import Hubert


class PeerError(Exception):
    """Why a library cannot be measured here."""


@dataclass
class Contestant:
    """A model, and how the sum of its loss and the number of hidden frames come of a batch; ``encode`` is its forward pass alone."""

    name: str
    model: nn.Module
    losses: Callable[[Batch, InputMask], tuple[Tensor, Tensor]]
    encode: Callable[[Batch], Tensor]
    version: dict[str, str] = field(default_factory=dict)


def ours(name: str, model: Hubert) -> Contestant:
    """A model of this library."""

    def losses(batch: Batch, mask: InputMask) -> tuple[Tensor, Tensor]:
        found = model.masked_losses(batch, mask)
        return torch.stack([loss.value for loss in found.values()]).sum(), found["masked_prediction"].count

    return Contestant(name, model, losses, lambda batch: model.encode(batch)[0])


def transformers(model: Hubert) -> Contestant:
    """The same model in transformers, with its default attention (SDPA).

    Raises:
        PeerError: it cannot be imported.
    """
    library = _imported("transformers")
    config, heard = model.config, {}
    encoder, waveform = config.encoder, config.waveform
    theirs = library.HubertModel(
        library.HubertConfig(
            hidden_size=encoder.dim,
            num_hidden_layers=encoder.layers,
            num_attention_heads=encoder.heads,
            intermediate_size=encoder.feed_forward_dim,
            hidden_dropout=encoder.dropout,
            attention_dropout=encoder.attention_dropout,
            activation_dropout=encoder.activation_dropout,
            feat_proj_dropout=waveform.dropout,
            layerdrop=encoder.layer_drop,
            conv_dim=list(waveform.widths),
            conv_kernel=list(waveform.kernels),
            conv_stride=list(waveform.strides),
            num_conv_pos_embeddings=encoder.position_kernel,
            num_conv_pos_embedding_groups=encoder.position_groups,
            mask_time_prob=0.65,  # so that there is a vector of hidden frames; which are hidden is given
            mask_feature_prob=0.0,
            attn_implementation="sdpa",
        )
    )
    predictor = model.predictor
    assert predictor is not None
    state = model.state_dict()
    theirs.load_state_dict({key: state[hugging_face_name(key)].clone() for key in theirs.state_dict()})
    whole = nn.ModuleDict({"hubert": theirs, "predictor": _copy(predictor)})
    theirs.feature_extractor.register_forward_hook(lambda _, __, out: heard.update(convolved=out))

    def run(batch: Batch, mask: Tensor | None) -> Tensor:
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        padded = bool((batch.audio_lengths < batch.audio.shape[1]).any())
        attended = (~padding_mask(batch.audio_lengths, batch.audio.shape[1])).long() if padded else None
        encoded: Tensor = theirs(batch.audio, attention_mask=attended, mask_time_indices=mask).last_hidden_state
        return encoded

    def losses(batch: Batch, mask: InputMask) -> tuple[Tensor, Tensor]:
        assert batch.audio_lengths is not None
        encoded = run(batch, mask.fused)
        padding = padding_mask(waveform.frames(batch.audio_lengths), encoded.shape[1])
        units = batch.targets["units"][:, : encoded.shape[1]]
        assert mask.fused is not None
        loss = masked_prediction_loss(whole["predictor"], encoded, units, mask.fused, padding)  # type: ignore[arg-type]
        penalty = heard.pop("convolved").float().square().mean()
        return loss.value + config.feature_penalty * penalty * loss.count, loss.count

    def encode(batch: Batch) -> Tensor:
        encoded = run(batch, None)
        heard.clear()
        return encoded

    return Contestant("transformers", whole, losses, encode, {"transformers": library.__version__})


def fairseq(model: Hubert) -> Contestant:
    """The same model in fairseq; it counts one frame more of a padded clip than ours.

    Raises:
        PeerError: it cannot be imported.
    """
    library = _imported("fairseq")
    hubert, task = _imported("fairseq.models.hubert.hubert"), _imported("fairseq.tasks.hubert_pretraining")
    dictionary = _imported("fairseq.data.dictionary").Dictionary()
    config = model.config
    encoder, waveform = config.encoder, config.waveform
    for unit in range(config.units - len(dictionary)):
        dictionary.add_symbol(str(unit))
    sizes = zip(waveform.widths, waveform.kernels, waveform.strides, strict=True)
    theirs = hubert.HubertModel(
        hubert.HubertConfig(
            label_rate=50,
            encoder_layers=encoder.layers,
            encoder_embed_dim=encoder.dim,
            encoder_ffn_embed_dim=encoder.feed_forward_dim,
            encoder_attention_heads=encoder.heads,
            dropout=encoder.dropout,
            attention_dropout=encoder.attention_dropout,
            activation_dropout=encoder.activation_dropout,
            encoder_layerdrop=encoder.layer_drop,
            dropout_input=waveform.dropout,
            dropout_features=0.0,
            final_dim=config.final_dim,
            conv_feature_layers=repr([tuple(size) for size in sizes]),
            feature_grad_mult=config.feature_gradient_scale,
            conv_pos=encoder.position_kernel,
            conv_pos_groups=encoder.position_groups,
            skip_nomask=True,
        ),
        task.HubertPretrainingConfig(sample_rate=16000),
        [dictionary],
    )
    state = model.state_dict()
    theirs.load_state_dict({key: state[fairseq_name(key, "hubert")].clone() for key in theirs.state_dict()})
    # Its own masks are drawn by NumPy; it is given ours.
    hidden: list[Tensor] = []
    theirs.apply_mask = lambda x, _, __: (torch.where(hidden[0][:, : x.shape[1], None], theirs.mask_emb.to(x.dtype), x), hidden[0])

    def losses(batch: Batch, mask: InputMask) -> tuple[Tensor, Tensor]:
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        assert mask.fused is not None
        hidden[:] = [mask.fused]
        padding = padding_mask(batch.audio_lengths, batch.audio.shape[1])
        out = theirs(batch.audio, [batch.targets["units"].clamp(min=0)], padding, mask=True)
        logits = out["logit_m_list"][0]
        loss = F.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long, device=logits.device), reduction="sum")
        count = torch.tensor(len(logits), device=logits.device)
        return loss + config.feature_penalty * out["features_pen"] * count, count

    def encode(batch: Batch) -> Tensor:
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        padding = padding_mask(batch.audio_lengths, batch.audio.shape[1])
        encoded: Tensor = theirs(batch.audio, padding_mask=padding, mask=False, features_only=True)["x"]
        return encoded

    return Contestant("fairseq", theirs, losses, encode, {"fairseq": library.__version__})


PEERS: dict[str, Callable[[Hubert], Contestant]] = {"transformers": transformers, "fairseq": fairseq}


def _copy(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # old libraries fail in many ways under a new Python; which one is the finding
        raise PeerError(
            f"{name.partition('.')[0]} cannot be imported here ({type(error).__name__}: {str(error).splitlines()[0]})."
        ) from error
