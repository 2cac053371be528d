"""From a folder of transformers to a waveform: texts are read, spoken and voiced as there, symbol by symbol and sample by sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from torch import Tensor

from avtlm import checkpoint
from avtlm.convert.huggingface import convert_folder
from avtlm.nn.spectrogram import SpectrogramPrenet
from avtlm.speaking import TextError, synthesize
from tests.convert.test_speecht5_huggingface import SIZES

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

TEXT = "bad cab ace"
VOCODER: dict[str, Any] = {"upsample_initial_channel": 16, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]]}


def save_pieces(folder: Path) -> Path:
    """A SentencePiece model of characters, as SpeechT5's."""
    specials = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT, "dead bed"]), model_prefix=str(folder / "spm_char"), model_type="char", vocab_size=10, minloglevel=2,
        **specials,
    )  # fmt: skip
    return folder / "spm_char.model"


@torch.no_grad()
def test_a_text_is_said_as_transformers_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    there = transformers.SpeechT5ForTextToSpeech(transformers.SpeechT5Config(**SIZES | {"num_mel_bins": 80})).eval()
    vocoder = transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**VOCODER)).eval()
    for network in (there, vocoder):
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    there.speech_decoder_postnet.prob_out.weight *= 0.1
    there.speech_decoder_postnet.prob_out.bias.fill_(-1.14)
    tokenizer = transformers.SpeechT5Tokenizer(str(save_pieces(tmp_path)))
    for name, part in (("model", there), ("model", tokenizer), ("vocoder", vocoder)):
        part.save_pretrained(tmp_path / "there" / name)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert ids[0, -1] == 2

    keep = torch.rand(200, 2, 8, generator=torch.Generator().manual_seed(2)) > 0.5
    calls = {"there": 0, "here": 0}

    def dropout(_: Any, x: Tensor, p: float) -> Tensor:
        layer = calls["there"] % 2
        calls["there"] += 1
        return torch.where(keep[: x.shape[1], layer], x, 0.0) / (1 - p)

    def draw(_: SpectrogramPrenet, rows: int, steps: int, generator: torch.Generator) -> Tensor:
        calls["here"] += 1
        return keep[calls["here"] - 1][:, None, None]

    monkeypatch.setattr(type(there.speecht5.decoder.prenet), "_consistent_dropout", dropout)
    monkeypatch.setattr(SpectrogramPrenet, "draw", draw)
    voice = torch.ones(1, 5)
    expected = there.generate_speech(ids, voice, vocoder=vocoder)
    folder = convert_folder(tmp_path / "there" / "model", None, tmp_path / "model")
    assert checkpoint.load_decoding(folder)["end_symbol"]
    assert "avtlm synthesize TEXT --model FOLDER --voice FILE -o FILE\n" in (folder / "README.md").read_text()
    (found,) = synthesize([TEXT], folder, voice, convert_folder(tmp_path / "there" / "vocoder", None, tmp_path / "vocoder"))
    assert len(found.mel) > 9
    assert not found.cut
    assert found.attention[0].shape[2] == ids.shape[1]
    np.testing.assert_allclose(found.wave, expected.numpy(), atol=1e-4)
    with pytest.raises(TextError, match="the model's vocabulary has no 'z'"):
        synthesize(["zzz"], folder, voice)
