"""The translator: clips alone and in batches, plans of batches, the learning rate, and that it learns."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avtlm.evaluation.superb.data import Corpus
from avtlm.evaluation.superb.task import Heard
from avtlm.evaluation.superb.translation import Translation, TranslationConfig, Translator

TINY = TranslationConfig(
    dim=16, layers=1, heads=2, feed_forward_dim=32, dropout=0.0, channels=16, beam=3, longest=20, warmup=5, batch=4, batch_frames=100
)
TEXTS = ("Ja, gut", "Nein")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rows = [{"id": f"c{number}", "audio": "none.wav", "translation": text} for number, text in enumerate(TEXTS)]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.json").write_text('{"task": "ST", "name": "two texts"}')
    return Corpus.read(tmp_path)


def heard(corpus: Corpus) -> Heard:
    features = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([20, 13])
    features[1, 13:] = 0
    return Heard(features, lengths, corpus.split("train"), (0, 0), 50.0)


def test_a_quarter_of_the_frames_remain_and_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Translator(6, 9, TINY).eval()
    features = torch.randn(2, 20, 6)
    encoded, lengths = model.encode(features, torch.tensor([20, 13]))
    assert encoded.shape == (2, 5, 16)
    assert lengths.tolist() == [5, 4]
    alone, _ = model.encode(features[1:, :13], torch.tensor([13]))
    torch.testing.assert_close(encoded[1:, :4], alone, atol=1e-5, rtol=1e-5)


def test_two_texts_are_learned_and_written_with_case(corpus: Corpus) -> None:
    torch.manual_seed(0)
    task = Translation(corpus, TINY)
    head, batch, generator = task.head(6, 50.0), heard(corpus), torch.Generator()
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(80):
        loss = task.loss(head, batch, generator)
        assert int(loss.count) == 2
        optimizer.zero_grad()
        (loss.value / loss.count).backward()
        optimizer.step()
    with torch.no_grad():
        found = task.evaluate(head.eval(), [batch], "test")
    assert found["chrF2"] == pytest.approx(100)
    assert set(found) == {metric.name for metric in task.metrics}


def test_word_pieces_stand_in_for_characters(corpus: Corpus) -> None:
    task = Translation(corpus, replace(TINY, pieces=15))
    assert len(task.vocabulary) == 15
    assert [task.vocabulary.decode(task.vocabulary.encode(text)) for text in TEXTS] == list(TEXTS)
    assert len(Translation(corpus, TINY).vocabulary) == 4 + 1 + len(set("".join(TEXTS)) - {" "})


def test_batches_hold_so_many_frames_and_every_clip_once(corpus: Corpus) -> None:
    frames = [5, 60, 30, 55, 10, 12, 200, 11, 9]
    task = Translation(corpus, TINY)
    plan = task.plan(frames, 0)
    assert sorted(row for rows in plan for row in rows) == list(range(9))
    for rows in plan:
        assert len(rows) <= 4
        assert len(rows) == 1 or max(frames[row] for row in rows) * len(rows) <= 100
    assert plan == task.plan(frames, 0)
    assert plan != task.plan(frames, 1)


def test_the_learning_rate_rises_and_falls_with_the_root(corpus: Corpus) -> None:
    rate = Translation(corpus, TranslationConfig()).rate
    assert [rate(4_999), rate(9_999), rate(39_999)] == pytest.approx([0.5, 1.0, 0.5])


def test_the_defaults_are_those_of_the_benchmark() -> None:
    config = TranslationConfig()
    assert (config.steps, config.lr, config.warmup, config.accumulation, config.batch_frames) == (32_000, 1e-3, 10_000, 8, 10_000)
    assert (config.layers, config.beam, config.smoothing, config.longest) == (3, 20, 0.1, 400)
    with pytest.raises(ValueError, match="warmup: 0; give at least 1"):
        TranslationConfig(warmup=0)
