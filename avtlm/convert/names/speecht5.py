"""Key names of SpeechT5 and Speech2C: in their official code on fairseq, and of SpeechT5 in Hugging Face.

Each table is written once and read in both directions. One embedding has three names there; post-norm models carry norms of distances, and
all models distances in the decoder, that nothing uses: they are left out, and written again with their first values.
"""

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from avtlm.convert.names.transformer import ATTENTION, LAYER, Rules, find_name, transformer

Layout = Literal["group", "layer"]

EMBEDDING = "decoder.embedding.weight"
READ_EMBEDDING = "text_prenet.embedding.weight"  # in models whose embeddings are not one
# The first of them is what the embedding is called where only one name is needed.
EMBEDDINGS = (
    "text_decoder_prenet.embed_tokens.weight",
    "text_encoder_prenet.encoder_prenet.0.weight",
    "text_decoder_postnet.output_projection.weight",
)
# Counters and tables that nothing uses. Norms of distances are used in pre-norm models alone.
UNUSED = re.compile(r"(?:encoder|decoder)\.version|decoder\.pos_emb\..+|decoder\.layers\.\d+\.norm_k\..+|.+\._float_tensor")
POST_NORM_UNUSED = re.compile(r"encoder\.layers\.\d+\.norm_k\..+")
# Of SpeechT5HifiGan in transformers.
VOCODER_RULES: Rules = [
    (r"conv_pre\.(.+)", r"first.\1"),
    (r"upsampler\.(\d+)\.(.+)", r"up.\1.\2"),
    (r"resblocks\.(\d+)\.convs1\.(.+)", r"blocks.\1.dilated.\2"),
    (r"resblocks\.(\d+)\.convs2\.(.+)", r"blocks.\1.plain.\2"),
    (r"conv_post\.(.+)", r"last.\1"),
    (r"mean", r"mean"),
    (r"scale", r"scale"),
]


def _convolutions(theirs: str, layout: Layout) -> Rules:
    norm = r"2\.1" if layout == "layer" else r"2"
    return [
        (rf"{theirs}\.conv_layers\.(\d+)\.0\.(.+)", r"frontend.layers.\1.conv.\2"),
        (rf"{theirs}\.conv_layers\.(\d+)\.{norm}\.(weight|bias)", r"frontend.layers.\1.norm.\2"),
    ]


def fairseq_rules(layout: Layout = "group", score_layers: int = 1, shared: bool = True) -> Rules:
    """Of SpeechT5's official code, whose codes are scored by so many layers, and whose embeddings may be one."""
    embeddings = (EMBEDDING,) * 3 if shared else (EMBEDDING, READ_EMBEDDING, "decoder.output.weight")
    scores: Rules = [(r"quantizer\.weight_proj\.(weight|bias)", r"quantizer.score.0.\1")]
    if score_layers > 1:  # all but the last stand in a row of their own with their activation
        last = score_layers - 1
        scores = [
            (rf"quantizer\.weight_proj\.{last}\.(weight|bias)", rf"quantizer.score.{last}.\1"),
            (r"quantizer\.weight_proj\.(\d+)\.0\.(weight|bias)", r"quantizer.score.\1.\2"),
        ]
    heard, written = "speech_encoder_prenet", r"speech_decoder_postnet"
    return [
        *_convolutions(rf"{heard}\.feature_extractor", layout),
        (rf"{heard}\.mask_emb", r"feature_mask"),
        (rf"{heard}\.layer_norm\.(.+)", r"frontend.norm.\1"),
        (rf"{heard}\.post_extract_proj\.(.+)", r"frontend.project.\1"),
        (rf"{heard}\.pos_conv\.0\.weight_g", r"speech_positions.conv.parametrizations.weight.original0"),
        (rf"{heard}\.pos_conv\.0\.weight_v", r"speech_positions.conv.parametrizations.weight.original1"),
        (rf"{heard}\.pos_conv\.0\.bias", r"speech_positions.conv.bias"),
        *((re.escape(name), ours) for name, ours in zip(EMBEDDINGS, embeddings, strict=True)),
        (r"text_encoder_prenet\.encoder_prenet\.1\.alpha", r"text_prenet.positions.scale"),
        (r"text_decoder_prenet\.embed_positions\.weight", r"decoder.positions.table.weight"),
        (r"text_decoder_prenet\.layernorm_embedding\.(.+)", r"decoder.embedding_norm.\1"),
        (r"encoder\.proj\.(.+)", r"ctc.\1"),
        (r"encoder\.pos_emb\.pe_k\.weight", r"encoder.distances.table.weight"),
        (r"encoder\.layers\.(\d+)\.norm_k\.(.+)", r"encoder.layers.\1.distance_norm.\2"),
        *transformer("encoder", "encoder"),
        *transformer("decoder", "decoder"),
        (r"speech_decoder_prenet\.decoder_prenet\.0\.0\.prenet\.(\d+)\.0\.(.+)", r"speech_prenet.layers.\1.\2"),
        (r"speech_decoder_prenet\.decoder_prenet\.0\.1\.(.+)", r"speech_prenet.project.\1"),
        (r"speech_decoder_prenet\.decoder_prenet\.1\.alpha", r"speech_prenet.positions.scale"),
        (r"speech_decoder_prenet\.spkembs_layer\.0\.(.+)", r"speech_prenet.voice.\1"),
        (rf"{written}\.feat_out\.(.+)", r"spectrogram.frames.\1"),
        (rf"{written}\.prob_out\.(.+)", r"spectrogram.stop.\1"),
        (rf"{written}\.postnet\.postnet\.(\d+)\.0\.(.+)", r"spectrogram.convolutions.\1.\2"),
        (rf"{written}\.postnet\.postnet\.(\d+)\.1\.(.+)", r"spectrogram.norms.\1.\2"),
        (r"hubert_layer\.label_embs_concat", r"predictor.units"),
        (r"hubert_layer\.final_proj\.(.+)", r"predictor.project.\1"),
        (r"quantizer\.vars", r"quantizer.entries"),
        *scores,
        (r"projection\.(.+)", r"speech_prenet.memory_voice.\1"),
        (r"speaker_decoder_postnet\.bn_pooling\.(.+)", r"speaker_head.pooled_norm.\1"),
        (r"speaker_decoder_postnet\.output_embedding\.weight", r"speaker_head.project.weight"),
        (r"speaker_decoder_postnet\.bn_embedding\.(.+)", r"speaker_head.norm.\1"),
        (r"speaker_decoder_postnet\.output_projection\.weight", r"speaker.weight"),
    ]


def speech2c_unused(encoder_norm_first: bool, decoder_norm_first: bool) -> re.Pattern[str]:
    """What nothing uses in a Speech2C model: norms of distances where layers are post-norm, counters, tables of sinusoids."""
    dead = [part for part, used in (("encoder", encoder_norm_first), ("decoder", decoder_norm_first)) if not used]
    norms = rf"|(?:.+\.)?(?:{'|'.join(dead)})\.layers\.\d+\.norm_k\..+" if dead else ""
    return re.compile(rf"(?:.+\.)?decoder\.version|.+\._float_tensor{norms}")


def speech2c_rules(layout: Layout = "group", tied: bool = False) -> Rules:
    """Of Speech2C's official code: HuBERT's names, and a decoder, whose output may be its embedding."""
    return [
        *_convolutions("feature_extractor", layout),
        (r"mask_emb", r"feature_mask"),
        (r"layer_norm\.(.+)", r"frontend.norm.\1"),
        (r"post_extract_proj\.(.+)", r"frontend.project.\1"),
        (r"encoder\.pos_conv\.0\.weight_g", r"encoder.positions.conv.parametrizations.weight.original0"),
        (r"encoder\.pos_conv\.0\.weight_v", r"encoder.positions.conv.parametrizations.weight.original1"),
        (r"encoder\.pos_conv\.0\.bias", r"encoder.positions.conv.bias"),
        *((rf"{part}\.pos_emb\.pe_k\.weight", rf"{part}.distances.table.weight") for part in ("encoder", "decoder")),
        *((rf"{part}\.layers\.(\d+)\.norm_k\.(.+)", rf"{part}.layers.\1.distance_norm.\2") for part in ("encoder", "decoder")),
        *transformer("encoder", "encoder"),
        *transformer("decoder", "decoder"),
        (r"decoder\.embed_tokens\.weight", r"decoder.embedding.weight"),
        (r"decoder\.embed_positions\.weight", r"decoder.positions.table.weight"),
        (r"decoder\.output_projection\.weight", EMBEDDING if tied else r"decoder.output.weight"),
        (r"label_embs_concat", r"predictor.units"),
        (r"final_proj\.(.+)", r"predictor.project.\1"),
    ]


def hugging_face_rules(writes_text: bool) -> Rules:
    """Of SpeechT5 in transformers.

    Args:
        writes_text: whose embedding there is: the decoder's (with the output, tied), or the encoder's.
    """
    heard, layers = r"speecht5\.encoder\.prenet", r"speecht5\.encoder\.wrapped_encoder"
    read, decoder, written = r"speecht5\.decoder\.prenet", r"speecht5\.decoder\.wrapped_decoder", r"speech_decoder_postnet"
    embeddings = [rf"{read}\.embed_tokens\.weight", r"text_decoder_postnet\.lm_head\.weight"]
    position = rf"{heard}\.pos_conv_embed\.conv\."
    feed_forward = (("intermediate_dense", "expand"), ("output_dense", "contract"))
    return [
        (rf"{heard}\.feature_encoder\.conv_layers\.(\d+)\.conv\.(.+)", r"frontend.layers.\1.conv.\2"),
        (rf"{heard}\.feature_encoder\.conv_layers\.(\d+)\.layer_norm\.(.+)", r"frontend.layers.\1.norm.\2"),
        (rf"{heard}\.feature_projection\.layer_norm\.(.+)", r"frontend.norm.\1"),
        (rf"{heard}\.feature_projection\.projection\.(.+)", r"frontend.project.\1"),
        (rf"{heard}\.masked_spec_embed", r"feature_mask"),
        (rf"{position}parametrizations\.weight\.original0", r"speech_positions.conv.parametrizations.weight.original0"),
        (rf"{position}parametrizations\.weight\.original1", r"speech_positions.conv.parametrizations.weight.original1"),
        (rf"{position}weight_g", r"speech_positions.conv.parametrizations.weight.original0"),
        (rf"{position}weight_v", r"speech_positions.conv.parametrizations.weight.original1"),
        (rf"{position}bias", r"speech_positions.conv.bias"),
        *((each, EMBEDDING) for each in (embeddings if writes_text else [])),
        (rf"{heard}\.embed_tokens\.weight", EMBEDDING),
        (rf"{heard}\.encode_positions\.alpha", r"text_prenet.positions.scale"),
        *(
            (rf"{layers}\.{LAYER}attention\.{name}\.(.+)", rf"encoder.layers.\1.self_attention.{ours}.\2")
            for name, ours in ATTENTION.items()
        ),
        *((rf"{layers}\.{LAYER}feed_forward\.{name}\.(.+)", rf"encoder.layers.\1.feed_forward.{ours}.\2") for name, ours in feed_forward),
        (rf"{layers}\.{LAYER}layer_norm\.(.+)", r"encoder.layers.\1.self_attention_norm.\2"),
        (rf"{layers}\.{LAYER}final_layer_norm\.(.+)", r"encoder.layers.\1.feed_forward_norm.\2"),
        (rf"{layers}\.layer_norm\.(.+)", r"encoder.norm.\1"),
        (rf"{layers}\.embed_positions\.pe_k\.weight", r"encoder.distances.table.weight"),
        *((rf"{decoder}\.{LAYER}feed_forward\.{name}\.(.+)", rf"decoder.layers.\1.feed_forward.{ours}.\2") for name, ours in feed_forward),
        *transformer(decoder, "decoder"),
        (rf"{read}\.layers\.(\d+)\.(.+)", r"speech_prenet.layers.\1.\2"),
        (rf"{read}\.final_layer\.(.+)", r"speech_prenet.project.\1"),
        (rf"{read}\.encode_positions\.alpha", r"speech_prenet.positions.scale"),
        (rf"{read}\.speaker_embeds_layer\.(.+)", r"speech_prenet.voice.\1"),
        (rf"{written}\.feat_out\.(.+)", r"spectrogram.frames.\1"),
        (rf"{written}\.prob_out\.(.+)", r"spectrogram.stop.\1"),
        (rf"{written}\.layers\.(\d+)\.conv\.(.+)", r"spectrogram.convolutions.\1.\2"),
        (rf"{written}\.layers\.(\d+)\.batch_norm\.(.+)", r"spectrogram.norms.\1.\2"),
    ]


def rename(state: Mapping[str, Tensor], rules: Rules, unused: re.Pattern[str], model: str) -> dict[str, Tensor]:
    """Official weights by our names, without those that match ``unused``.

    Raises:
        ValueError: a tensor that is none of the ``model``.
    """
    return {find_name(rules, key, model): tensor for key, tensor in state.items() if not unused.fullmatch(key)}
