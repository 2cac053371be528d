"""What a run for generation leaves behind speaks, by the same commands as models of other code."""

from pathlib import Path

import numpy as np
import pytest

from avtlm import cli
from avtlm.data.manifest import read_manifest
from tests.training.made_runs import run
from tests.training.made_whole import finetuning, make_spoken_corpus, voices


@pytest.mark.parametrize("kind", ["synthesis", "conversion"])
def test_a_trained_folder_speaks(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_spoken_corpus(tmp_path, 8)
    settings = finetuning(corpus, tmp_path / "run", kind, steps=2, decoding={"longest": 2.0}, validation=None)
    model = run(settings)
    row = next(iter(read_manifest(corpus.sound)))
    assert row.transcript is not None
    clip = str(read_manifest(corpus.sound).path(row.audio or ""))
    verb, given = ("synthesize", row.transcript) if kind == "synthesis" else ("convert-voice", clip)
    said = ["--model", str(model), "--voice", voices(corpus), "--speaker", "s1"]
    capsys.readouterr()
    assert cli.main([verb, given, *said, "-o", str(tmp_path / "said.wav"), "--mel", str(tmp_path / "said.npy")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'said.wav'}\n"
    mel = np.load(tmp_path / "said.npy")
    assert 0 < len(mel) <= 2 * max(len(row.transcript), 50 * row.duration)
