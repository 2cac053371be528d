"""Recognisers and whole models of a few thousand weights, one of each kind that exports differently."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avtlm import config, systems
from avtlm.checkpoint import save_model
from avtlm.decoding.settings import DecodingConfig
from avtlm.nn.transducer import TransducerConfig
from avtlm.nn.transformer import DecoderConfig, EncoderConfig
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.systems.speecht5 import LossConfig
from avtlm.systems.vatlm import VATLMConfig
from avtlm.text.vocabulary import SPACE, SPECIALS, Vocabulary
from avtlm.transcriber import Transcriber
from avtlm.whole_model import WholeModel
from tests.made_model import WORDS, tiny_recognizer
from tests.systems import bridge_models, heard_models, mandarin_models, sequence_models, speech_models

DECODER = DecoderConfig(dim=16, layers=1, heads=2, feed_forward_dim=16, max_positions=64)
JOINT = DecodingConfig("joint", beam=3, ctc_weight=0.4)
LETTERS = [*SPECIALS, SPACE, *"abcdefgh"]


def audio_visual(**changes: Any) -> Recognizer:
    """Sound, lips or both, with CTC and a decoder; ``changes`` are of its encoder."""
    small = tiny_recognizer().config
    encoder = replace(config.load(VATLMConfig, small.encoder), **changes)
    heads = replace(small, encoder=config.to_dict(encoder), ctc_weight=0.5, decoder=DECODER, decoding=JOINT)
    return _shaken(Recognizer(heads, systems.find("vatlm").build(encoder), Vocabulary.characters(WORDS)))


def experts() -> Recognizer:
    """The same with modality experts."""
    encoder = EncoderConfig(
        dim=16, layers=1, heads=2, feed_forward_dim=16, position_kernel=4, position_groups=2, experts=("audio", "video", "joint")
    )
    return audio_visual(encoder=encoder)


def waveform(system: str = "hubert") -> Recognizer:
    """Waveforms, with CTC and a transducer."""
    torch.manual_seed(0)
    encoder = speech_models.CONFIGS[system]
    transducer = TransducerConfig(dim=8, joint_dim=8)
    heads = RecognizerConfig(encoder=config.to_dict(encoder), transducer=transducer, decoding=DecodingConfig("transducer", beam=3))
    return _shaken(Recognizer(heads, systems.find(system).build(encoder), Vocabulary.characters(WORDS)))


def speecht5() -> WholeModel:
    """Its own decoder, without CTC."""
    model = sequence_models.speecht5(task="recognition", ctc_head="none", losses=LossConfig(ctc=0.0))
    return WholeModel(model, Vocabulary(LETTERS[:10]), DecodingConfig("attention", beam=3, max_length_ratio=0.0, max_length_extra=9.0))


def speechlm() -> WholeModel:
    """CTC over pairs of frames, and a decoder with distances."""
    model = bridge_models.speechlm(task="recognition", decoder=bridge_models.DECODER)
    return WholeModel(model, Vocabulary(LETTERS[:9]), JOINT)


def mmspeech() -> WholeModel:
    """Filter banks of its own, a decoder with biases."""
    model = mandarin_models.mmspeech(task="recognition", codes=0)
    return WholeModel(model, Vocabulary(LETTERS[:10]), DecodingConfig("attention", beam=3))


def mt2kd() -> WholeModel:
    """A Zipformer with a transducer."""
    return WholeModel(heard_models.tiny_model(), heard_models.SYMBOLS)


MODELS = {
    "audio_visual": audio_visual,
    "experts": experts,
    "waveform": waveform,
    "speecht5": speecht5,
    "speechlm": speechlm,
    "mmspeech": mmspeech,
    "mt2kd": mt2kd,
}


def _shaken(model: Recognizer) -> Recognizer:
    """Parameters off their start values, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def save(model: Transcriber, folder: Path) -> Path:
    """Its model folder."""
    if isinstance(model, Recognizer):
        system = next(name for name, each in systems.SYSTEMS.items() if each.module == type(model.encoder).__module__)
        card = {"system": system, "task": "recognition", "model": config.to_dict(model.config)}
        save_model(folder, model, card, model.vocabulary)
    else:
        assert isinstance(model, WholeModel)
        inner: Any = model.model
        system = next(name for name, each in systems.SYSTEMS.items() if each.module == type(inner).__module__)
        card = {"system": system, "task": "transcription", "model": config.to_dict(inner.config)}
        save_model(folder, inner, card, model.vocabulary, decoding=model.decoding)
    return folder
