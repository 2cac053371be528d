"""The Zipformer encoder, for whole clips and for streams."""

from avtlm.nn.zipformer.config import LARGE, MEDIUM, SMALL, ZipformerConfig
from avtlm.nn.zipformer.encoder import Zipformer, ZipformerOutput
from avtlm.nn.zipformer.streaming import ZipformerStream

__all__ = ["LARGE", "MEDIUM", "SMALL", "Zipformer", "ZipformerConfig", "ZipformerOutput", "ZipformerStream"]
