"""Key names of SpeechLM's text-to-unit model in its official code, which builds on fairseq's FastSpeech 2."""

import re

from avtlm.convert.names.transformer import ATTENTION, Rules

# Predictors of pitch and energy, their embeddings, and a buffer, which nothing uses.
UNUSED = re.compile(r"encoder\.(?:version|embed_positions\._float_tensor|var_adaptor\.(?:pitch_|energy_|embed_pitch|embed_energy).+)")
EMBEDDING, OUTPUT = "encoder.embed_tokens.weight", "encoder.out_proj.weight"


def _layers(theirs: str, ours: str) -> Rules:
    layer = rf"encoder\.{theirs}\.(\d+)\."
    return [
        *((rf"{layer}self_attn\.{name}\.(.+)", rf"{ours}.\1.self_attention.{part}.\2") for name, part in ATTENTION.items()),
        (rf"{layer}layer_norm\.(.+)", rf"{ours}.\1.self_attention_norm.\2"),
        (rf"{layer}ffn\.ffn\.0\.(.+)", rf"{ours}.\1.expand.\2"),
        (rf"{layer}ffn\.ffn\.2\.(.+)", rf"{ours}.\1.contract.\2"),
        (rf"{layer}ffn\.layer_norm\.(.+)", rf"{ours}.\1.convolution_norm.\2"),
    ]


_DURATIONS = r"encoder\.var_adaptor\.duration_predictor\."
RULES: Rules = [
    (r"encoder\.embed_tokens\.weight", r"embedding.weight"),
    (r"encoder\.pos_emb_alpha", r"position_scale"),
    (r"encoder\.dec_pos_emb_alpha", r"unit_position_scale"),
    *_layers("encoder_fft_layers", "encoder"),
    *_layers("decoder_fft_layers", "unit_decoder"),
    (rf"{_DURATIONS}conv1\.0\.(.+)", r"durations.first.\1"),
    (rf"{_DURATIONS}ln1\.(.+)", r"durations.first_norm.\1"),
    (rf"{_DURATIONS}conv2\.0\.(.+)", r"durations.second.\1"),
    (rf"{_DURATIONS}ln2\.(.+)", r"durations.second_norm.\1"),
    (rf"{_DURATIONS}proj\.(.+)", r"durations.project.\1"),
    (r"encoder\.out_proj\.(.+)", r"output.\1"),
]
