"""BLEU of what a model writes, against a column of the manifest."""

import dataclasses
import json
from pathlib import Path

import pytest

from avtlm import cli
from avtlm.data.manifest import read_manifest, write_manifest
from avtlm.evaluation.bleu import corpus_bleu
from avtlm.evaluation.translation import evaluate_translation
from tests.made_model import save_corpus
from tests.test_whole_model import SHORT, DecodingConfig, model, saved

pytest.importorskip("sacrebleu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "model", model(), decoding=DecodingConfig("attention", beam=3, **SHORT))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """Whose references are what the model writes, but for one."""
    path = save_corpus(tmp_path_factory.mktemp("corpus"))
    rows = read_manifest(path)
    said = evaluate_translation(path, folder, "transcript").texts
    changed = []
    for row in rows:
        text = said.get(row.id, "") or "a b c d"
        changed.append(dataclasses.replace(row, extra={"translation": f"{text} {text} x y z" if row.id == "u0" else text}))
    write_manifest(path.with_name("translated.jsonl"), dataclasses.replace(rows, utterances=tuple(changed)))
    return path.with_name("translated.jsonl")


def test_the_score_is_that_of_what_is_written(corpus: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate_translation(corpus, folder)
    references = {row.id: row.extra["translation"] for row in read_manifest(corpus) if row.split == "test"}
    assert set(found.texts) == set(references)
    expected = corpus_bleu([found.texts[name] for name in references], [list(references.values())])
    assert found.score == expected
    assert cli.main(["evaluate", str(corpus), "--model", str(folder), "--translation", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.to_json()
    assert cli.main(["evaluate", str(corpus), "--model", str(folder), "--translation", "transcript", "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "Translation: 2 utterances" in out
    assert "BLEU" in out


def test_settings_of_the_search_count(corpus: Path, folder: Path) -> None:
    short = evaluate_translation(corpus, folder, decoding=["max_length_extra=1", "min_length=0"])
    assert all(len(text) <= 1 for text in short.texts.values())
    assert short.to_json()["decoding"] == ["max_length_extra=1", "min_length=0"]


def test_rows_without_references_are_named(corpus: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match="utterance 'u0' has no french to compare with"):
        evaluate_translation(corpus, folder, "french")
