"""A recogniser of a few thousand weights in a model folder, and a corpus for it: what the tests of commands run on."""

from pathlib import Path

import numpy as np
import torch

from avtlm import config, systems
from avtlm.checkpoint import save_model
from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_wav
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.systems.vatlm import VATLMConfig
from avtlm.text.vocabulary import Vocabulary
from tests import made_media

WORDS = ("bin blue now", "lay red soon", "set green again")


def tiny_recognizer() -> Recognizer:
    """Random weights, in evaluation mode; what it writes down has no meaning but is always the same."""
    torch.manual_seed(0)
    encoder = VATLMConfig(
        frontends=FrontEndConfig(
            lips=LipEncoderConfig(stem_channels=4, stem_stride=4, widths=(4, 4), blocks=(1, 1), strides=(2, 2)), phones=0
        ),
        encoder=EncoderConfig(dim=16, layers=1, heads=2, feed_forward_dim=16, position_kernel=4, position_groups=2),
        units=4,
        final_dim=4,
    )
    heads = RecognizerConfig(encoder=config.to_dict(encoder))
    model = Recognizer(heads, systems.find("vatlm").build(encoder), Vocabulary.characters(WORDS))
    assert model.ctc is not None
    torch.nn.init.normal_(model.ctc.weight)  # of a size at which the best symbol changes from frame to frame
    return model.eval()


def save_tiny_recognizer(folder: Path) -> Path:
    """The folder of `tiny_recognizer`."""
    model = tiny_recognizer()
    card = {"system": "vatlm", "task": "recognition", "model": config.to_dict(model.config)}
    save_model(folder, model, card, model.vocabulary)
    return folder


def save_corpus(folder: Path, count: int = 6) -> Path:
    """A manifest of lip crops (.npy) and sound (.wav) by three speakers, one second each; returns its path."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        frames = 25 + index
        samples = frames * 640
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{index}.npy", rng.integers(0, 256, (frames, 96, 96), dtype=np.uint8))
        write_wav(folder / f"{index}.wav", 0.3 * made_media.tone(samples / 16000, pitch=200 + 50 * index))
        split = "test" if index < count - 1 else "train"
        text = WORDS[index % len(WORDS)]
        rows.append(
            Utterance(f"u{index}", f"{index}.npy", f"{index}.wav", frames, samples, transcript=text, speaker=f"s{index % 3}", split=split)
        )
    write_manifest(folder / "manifest.jsonl", Manifest(folder, tuple(rows)))
    return folder / "manifest.jsonl"
