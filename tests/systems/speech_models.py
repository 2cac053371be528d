"""Speech systems of a few thousand parameters, and batches for them."""

from dataclasses import replace
from typing import Any

import torch

from avtlm.data.batching import Batch
from avtlm.frontends.waveform import WaveformConfig
from avtlm.nn.quantize import QuantizerConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.regression import TargetConfig
from avtlm.systems.data2vec import Data2Vec, Data2VecConfig
from avtlm.systems.hubert import Hubert, HubertConfig
from avtlm.systems.mt4ssl import MT4SSL, MT4SSLConfig
from avtlm.systems.speech_encoder import SpeechEncoder
from avtlm.systems.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from avtlm.systems.wavlm import WavLM, WavLMConfig

WAVEFORM = WaveformConfig(widths=(8,) * 7, dropout=0.0)
ENCODER = EncoderConfig(
    dim=16,
    layers=2,
    heads=2,
    feed_forward_dim=16,
    norm_first=False,
    dropout=0.0,
    attention_dropout=0.0,
    layer_drop=0.0,
    position_kernel=4,
    position_groups=2,
)
STACKED = replace(ENCODER, position_kernel=15, position_blocks=5)
SPANS = SpanMaskConfig(0.5, 3)
SHARED: dict[str, Any] = {"waveform": WAVEFORM, "encoder": ENCODER, "mask": SPANS, "feature_gradient_scale": 1.0}
TAUGHT = SHARED | {"waveform": replace(WAVEFORM, norm="layer", normalise=True), "encoder": STACKED, "targets": TargetConfig(layers=1)}
CONFIGS: dict[str, Any] = {
    "hubert": HubertConfig(**SHARED, units=7, final_dim=4, feature_penalty=0.1),
    "wav2vec2": Wav2Vec2Config(
        **SHARED, quantizer=QuantizerConfig(2, 5), final_dim=4, negatives=6, target_dropout=0.0, feature_penalty=0.1
    ),
    "wavlm": WavLMConfig(**SHARED | {"encoder": replace(ENCODER, relative_buckets=8)}, units=7, final_dim=4, feature_penalty=0.1),
    "data2vec": Data2VecConfig(**TAUGHT),
    "mt4ssl": MT4SSLConfig(**TAUGHT, units=7),
}
CLASSES = {"hubert": Hubert, "wav2vec2": Wav2Vec2, "wavlm": WavLM, "data2vec": Data2Vec, "mt4ssl": MT4SSL}
LENGTHS = (8000, 4700, 6000)


def tiny(system: str, **changes: Any) -> Any:
    """A system in evaluation mode; parameters off their start values, so that leaving one out shows."""
    torch.manual_seed(0)
    model: SpeechEncoder = CLASSES[system](replace(CONFIGS[system], **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def batch(lengths: tuple[int, ...] = LENGTHS, rate: int = 50) -> Batch:
    """Noise, with units below 7 at ``rate`` per second."""
    generator = torch.Generator().manual_seed(1)
    audio = torch.randn(len(lengths), max(lengths), generator=generator)
    units = torch.randint(0, 7, (len(lengths), max(lengths) * rate // 16000), generator=generator)
    for row, n in enumerate(lengths):
        audio[row, n:] = 0.0
        units[row, n * rate // 16000 :] = -1
    return Batch(tuple("abcdef"[: len(lengths)]), "audio", audio, torch.tensor(lengths), targets={"units": units})


def alone(whole: Batch, row: int) -> Batch:
    """One row without padding."""
    assert whole.audio is not None
    assert whole.audio_lengths is not None
    length = whole.audio_lengths[row : row + 1]
    frames = int(length) * 50 // 16000
    return Batch(
        (whole.ids[row],),
        "audio",
        whole.audio[row : row + 1, :length],
        length,
        targets={"units": whole.targets["units"][row : row + 1, :frames]},
    )
