"""The accuracy of models that name speakers: counted over a manifest, by the names that the folder holds."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from avtlm import checkpoint, cli, config
from avtlm.data.manifest import read_manifest, write_manifest
from avtlm.evaluation.identification import evaluate_speakers, wilson
from avtlm.text.vocabulary import SPECIALS, Vocabulary
from tests.made_model import save_corpus
from tests.systems.sequence_models import speecht5

NAMES = ("s0", "s1", "s2")


def save(folder: Path, names: tuple[str, ...] | None = NAMES, classes: int = 3, vocabulary: Vocabulary | None = None) -> Path:
    symbols = {} if vocabulary is None else {"vocabulary": len(vocabulary)}
    model = speecht5(task="speaker", speakers=classes, codebook=None, units=0, **symbols)
    files = {} if names is None else {"speakers.txt": "\n".join(names) + "\n"}
    card = {"system": "speecht5", "task": "speaker", "model": config.to_dict(model.config)}
    checkpoint.save_model(folder, model, card, vocabulary, extra_files=files)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_corpus(tmp_path_factory.mktemp("corpus"))


def test_clips_of_the_right_name_are_counted(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "model")
    found = evaluate_speakers(corpus, folder)
    truth = {row.id: row.speaker for row in read_manifest(corpus) if row.split == "test"}
    assert set(found.named) == set(truth)
    assert found.right == sum(truth[name] == speaker for name, speaker in found.named.items())
    assert found.accuracy == pytest.approx(20.0 * found.right)
    low, high = found.interval
    assert 0 <= low <= found.accuracy <= high <= 100
    assert cli.main(["evaluate", str(corpus), "--model", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.to_json()
    assert cli.main(["evaluate", str(corpus), "--model", str(folder)]) == 0
    assert "Speaker identification: 5 utterances, 3 speakers" in capsys.readouterr().out


def test_a_clip_is_heard_alone(corpus: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    first = evaluate_speakers(corpus, folder, limit=1)
    [(name, speaker)] = first.named.items()
    assert evaluate_speakers(corpus, folder).named[name] == speaker


def test_names_follow_the_classes(corpus: Path, tmp_path: Path) -> None:
    """The same model with its names the other way round names the others."""
    plain = evaluate_speakers(corpus, save(tmp_path / "a")).named
    turned = evaluate_speakers(corpus, save(tmp_path / "b", NAMES[::-1])).named
    assert {name: NAMES[2 - NAMES.index(speaker)] for name, speaker in plain.items()} == turned


def test_an_official_model_has_its_names_in_its_vocabulary(corpus: Path, tmp_path: Path) -> None:
    vocabulary = Vocabulary([*SPECIALS, *NAMES, "<mask>", "<ctc_blank>"], "tokens")
    found = evaluate_speakers(corpus, save(tmp_path / "model", None, 9, vocabulary))
    assert set(found.named.values()) <= set(vocabulary.symbols)


def test_intervals_are_those_of_wilson() -> None:
    assert wilson(8, 10) == pytest.approx((49.02, 94.33), abs=0.01)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 100.0


def test_what_cannot_be_counted_is_said_in_a_sentence(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "model")
    rows = read_manifest(corpus)
    stranger = tmp_path / "stranger.jsonl"
    changed = tuple(dataclasses.replace(row, speaker="nobody") for row in rows)
    write_manifest(stranger, dataclasses.replace(rows, utterances=changed))
    cases = [
        (corpus, save(tmp_path / "bare", None), "tells 3 speakers apart but names no speakers; write them into its speakers.txt"),
        (corpus, save(tmp_path / "few", ("s0", "s1")), "tells 3 speakers apart but names 2 speakers"),
        (stranger, folder, "is of speaker 'nobody', who is not among those of the training"),
    ]
    for manifest, model, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            evaluate_speakers(manifest, model)
        assert "\n" not in str(caught.value)
    assert cli.main(["evaluate", str(corpus), "--model", str(folder), "--snr", "0"]) == 2
    assert "--snr" in capsys.readouterr().err


def test_it_runs_where_the_weights_are(corpus: Path, tmp_path: Path) -> None:
    assert evaluate_speakers(corpus, save(tmp_path / "model"), limit=1).speakers == 3
    assert torch.is_grad_enabled()
