"""Options of Speech2C's official code as ours: HuBERT's, and those of a decoder."""

from collections.abc import Sequence
from typing import Any, cast

from avtlm.convert.options import Options
from avtlm.convert.options.wav2vec2 import fairseq
from avtlm.nn.transformer import DecoderConfig, EncoderConfig
from avtlm.systems.hubert import HubertConfig
from avtlm.systems.speech2c import Speech2CConfig


def speech2c(options: Options, units: Sequence[int], vocabulary: int = 0, official: bool = False) -> Speech2CConfig:
    """A pre-trained model of Speech2C's code, which is HuBERT's and a decoder.

    Args:
        options: of the model, with what the criterion weighs (``dec_weight`` too).
        units: sizes of the inventories.
        vocabulary: of the decoder; 0 takes the first inventory's.
        official: see `fairseq`.

    Raises:
        OptionError: an option that cannot be honoured.
    """
    take = options.take
    relative = take("use_rel_pos_enc", False)
    decoder_weight = take("dec_weight", 1.0)
    take("decoder_output_dim", 0)  # the width of what it puts out is its own
    longest, symbols = take("max_target_positions", 3000), take("decoder_dict_size", -1)
    options.require("adaptive_input", False)
    options.require("quant_noise_pq", 0)
    width = take("decoder_embed_dim", 768)
    sizes: dict[str, Any] = {
        "dim": width,
        "layers": take("decoder_layers", 6),
        "heads": take("decoder_attention_heads", 12),
        "feed_forward_dim": take("decoder_ffn_embed_dim", 3072),
        "norm_first": take("decoder_normalize_before", False),
        "layer_drop": take("decoder_layerdrop", 0.0),
        "tie_embeddings": take("share_decoder_input_output_embed", False),
        "scale_embedding": not take("no_scale_embedding", False),
        "positions": "learned" if take("decoder_learned_pos", False) else "sinusoidal",
        "key_distance": Speech2CConfig().decoder.key_distance if relative else 0,
    }
    if take("no_token_positional_embeddings", False):
        sizes["positions"] = "none"
    if sizes["positions"] == "learned":  # the others have no end
        sizes["max_positions"] = longest
    heard = cast(HubertConfig, fairseq(options, "hubert", units, official=official))
    encoder = heard.encoder
    decoder = DecoderConfig(
        activation=encoder.activation,
        dropout=encoder.dropout,
        attention_dropout=encoder.attention_dropout,
        activation_dropout=encoder.activation_dropout,
        **sizes,
    )
    values = {name: getattr(heard, name) for name in HubertConfig.__dataclass_fields__}
    distance = Speech2CConfig().encoder.key_distance if relative else 0
    values["encoder"] = EncoderConfig(**{**{n: getattr(encoder, n) for n in EncoderConfig.__dataclass_fields__}, "key_distance": distance})
    if symbols != -1 and not vocabulary:  # of the first inventory
        vocabulary = len(range(units[0])[:symbols])
    return Speech2CConfig(**values, decoder=decoder, decoder_vocabulary=vocabulary, decoder_weight=float(decoder_weight))
