"""Key names of MT2KD's models in icefall, and of its Zipformer for audio tagging alone."""

import re

from avtlm.convert.names.teachers import pooling
from avtlm.convert.names.transformer import Rules
from avtlm.convert.names.zipformer import zipformer_names
from avtlm.nn.zipformer import ZipformerConfig

PREFIX = "module."  # of models that several processes trained
# The same module under another name, and what nothing uses: codebooks of an experiment.
COPIES = {"audio_tagging_decoder.": "beats_decoder.", "encoder_projection.": "whisper_projection."}
WITHOUT_USE = re.compile(r"codebook_loss_net\..+")
HEADS: Rules = [
    (r"beats_decoder\.1\.(.+)", r"tagging.\1"),
    (r"classifier\.1\.(.+)", r"tagging.\1"),
    *pooling("ecapa_asp", "voice.pooling"),
    (r"ecapa_linear\.(.+)", r"voice.project.\1"),
    (r"whisper_projection\.(.+)", r"speech_projection.\1"),
    (r"decoder\.embedding\.(.+)", r"transducer.embedding.\1"),
    (r"decoder\.conv\.(.+)", r"transducer.convolution.\1"),
    (r"joiner\.encoder_proj\.(.+)", r"transducer.project_encoded.\1"),
    (r"joiner\.decoder_proj\.(.+)", r"transducer.project_predicted.\1"),
    (r"joiner\.output_linear\.(.+)", r"transducer.output.\1"),
    (r"simple_am_proj\.(.+)", r"simple_heard.\1"),
    (r"simple_lm_proj\.(.+)", r"simple_said.\1"),
    (r"ctc_output\.1\.(.+)", r"ctc.\1"),
    (r"speaker_classifier\.(.+)", r"speaker.\1"),
]


def names(config: ZipformerConfig) -> Rules:
    """Official names (patterns) and ours, of encoder and heads."""
    return [*zipformer_names(config, "encoder."), *HEADS]


def plain_key(key: str) -> str:
    """A key without what several processes put before it, and by its first name where it has two."""
    key = key.removeprefix(PREFIX)
    for copy, first in COPIES.items():
        if key.startswith(copy):
            return first + key.removeprefix(copy)
    return key
