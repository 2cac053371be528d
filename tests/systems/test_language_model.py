"""The language model: the same probabilities token by token and at once, trained on text in a recogniser's tokens, kept in a folder."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm import config, systems
from avtlm.data.batching import Batch
from avtlm.data.dataset import Source
from avtlm.decoding.rescoring import score_tokens
from avtlm.plain_yaml import read_yaml
from avtlm.systems.language_model import LanguageModel, LanguageModelConfig
from avtlm.text.vocabulary import EOS, PAD, Vocabulary, load_vocabulary
from avtlm.training import run_folder
from avtlm.training.loop import TrainConfig, train
from tests.made_model import WORDS, save_corpus, save_tiny_recognizer
from tests.test_configs import ROOT

TINY = LanguageModelConfig(vocabulary=9, dim=16, layers=2, heads=2, feed_forward_dim=16, dropout=0.0, attention_dropout=0.0)


def made(settings: LanguageModelConfig = TINY) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(settings).eval()
    for parameter in model.parameters():
        parameter.data.mul_(2.0)
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_one_token_at_a_time_gives_the_probabilities_of_the_whole(tied: bool) -> None:
    model = made(replace(TINY, tie_embeddings=tied))
    tokens = torch.tensor([[EOS, 4, 5, 6, 5], [EOS, 8, 8, 3, 4]])
    whole = model(tokens).log_softmax(-1)
    state = model.initial_state(2)
    with torch.no_grad():
        for place in range(tokens.shape[1]):
            said, state = model.step(tokens[:, place], state)
            assert torch.allclose(said, whole[:, place], atol=1e-5)


@settings(max_examples=8)
@given(st.integers(0, 10**6))
def test_hypotheses_keep_their_past_when_they_are_sorted_anew(seed: int) -> None:
    model, generator = made(), torch.Generator().manual_seed(seed)
    texts = torch.full((4, 1), EOS)
    state = model.initial_state(4)
    with torch.no_grad():
        for _ in range(5):
            said, state = model.step(texts[:, -1], state)
            assert torch.allclose(said, model(texts)[:, -1].log_softmax(-1), atol=1e-5)
            rows = torch.randint(4, (4,), generator=generator)
            texts = torch.cat([texts[rows], torch.randint(3, 9, (4, 1), generator=generator)], 1)
            state = state.reorder(rows)


def test_the_loss_is_that_of_every_sentence_alone_and_counts_its_end() -> None:
    model, sentences = made(), [[4, 5, 6], [7], []]
    tokens = torch.tensor([[*row, *[PAD] * (3 - len(row))] for row in sentences])
    batch = Batch(("a", "b", "c"), "sentences", targets={"tokens": tokens}, target_lengths={"tokens": torch.tensor([3, 1, 0])})
    loss = model.losses(batch, torch.Generator())["language_model"]
    assert int(loss.count) == 4 + 2 + 1
    alone = score_tokens(model, sentences)
    assert loss.value.item() == pytest.approx(-sum(alone), rel=1e-5)
    assert score_tokens(model, [sentences[1]])[0] == pytest.approx(alone[1], abs=1e-5)


def test_sizes_that_do_not_fit_are_refused() -> None:
    for wrong in ({"heads": 3}, {"layers": 0}, {"dim": 15, "heads": 1}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match=r"give an even dim|is not a probability"):
            replace(TINY, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vocabulary: 0 tokens"):
        LanguageModel(replace(TINY, vocabulary=0))


# Training --------------------------------------------------------------------------------------------------------------------------------


def run_settings(folder: Path, **changes: object) -> TrainConfig:
    """The tiny configuration as it stands, on a made text and with fewer steps."""
    recognizer = save_tiny_recognizer(folder / "recognizer")
    (folder / "text.txt").write_text("".join(f"{line}\n\n" for line in WORDS * 8))
    data = read_yaml(ROOT / "language_model" / "tiny.yaml")
    data |= {"output": str(folder / "run"), "vocabulary_from": str(recognizer), "steps": 30, "log_every": 10, "save_every": 30}
    data |= {"validate_every": 10, "threads": 1, **changes}
    data["sources"]["transcripts"]["manifest"] = data["validation"]["manifest"] = str(folder / "text.txt")
    return config.load(TrainConfig, data)


def test_the_tiny_configuration_learns_a_text_in_the_tokens_of_a_recogniser(tmp_path: Path) -> None:
    folder = train(run_settings(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    measured = [line["valid_perplexity"] for line in lines if "valid_perplexity" in line]
    assert len(measured) == 3
    assert measured[-1] < measured[0]
    assert measured[-1] < 4.0  # of 20 tokens
    model, vocabulary = systems.load_language_model(folder)
    assert vocabulary == load_vocabulary(tmp_path / "recognizer")
    texts = [vocabulary.encode(line) for line in WORDS]
    per_token = -sum(score_tokens(model, texts)) / sum(len(text) + 1 for text in texts)
    assert math.exp(per_token) == pytest.approx(measured[-1], rel=1e-4)
    best, _ = systems.load_language_model(tmp_path / "run" / "best")
    assert isinstance(best, LanguageModel)


def test_long_sentences_train_with_dropout_of_the_attention(tmp_path: Path) -> None:
    """On a CPU, long sequences with such dropout are weighed by products of matrices."""
    settings = run_settings(tmp_path, steps=1, validate_every=0)
    (tmp_path / "text.txt").write_text(" ".join(WORDS * 30) + "\n")
    train(replace(settings, model=settings.model | {"attention_dropout": 0.1}))
    assert (tmp_path / "run" / "model" / "weights.safetensors").exists()


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = train(run_settings(tmp_path / "a"))
    half = run_settings(tmp_path / "b", save_every=15)
    # The schedule belongs to all 30 steps; a run that ends after 15 is one whose later state was lost.
    kept = run_folder.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "save", lambda run, *rest: kept(run, *rest) if run.state.step <= 15 else None)
        train(half)
    again = train(half)
    first, second = (systems.load_language_model(folder)[0].state_dict() for folder in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_transcripts_of_a_manifest_are_sentences_too(tmp_path: Path) -> None:
    manifest = save_corpus(tmp_path / "corpus")
    settings = run_settings(tmp_path, steps=2, validate_every=0)
    source = Source(str(manifest), "sentences", split="test")
    model, vocabulary = systems.load_language_model(train(replace(settings, sources={"clips": source}, validation=None)))
    assert model.config.vocabulary == len(vocabulary)


def test_without_a_recogniser_the_texts_give_the_tokens(tmp_path: Path) -> None:
    settings = replace(run_settings(tmp_path, steps=2, validate_every=0), vocabulary_from=None)
    _, vocabulary = systems.load_language_model(train(settings))
    assert vocabulary == Vocabulary.characters(WORDS)


def test_a_model_goes_on_from_another_of_the_same_tokens(tmp_path: Path) -> None:
    first = train(run_settings(tmp_path / "a"))
    settings = run_settings(tmp_path / "b", steps=1, validate_every=1)
    train(replace(settings, initialise=str(first)))
    lines = [json.loads(line) for line in (tmp_path / "b" / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["valid_perplexity"] < 6.0
    other = replace(settings, output=str(tmp_path / "c"), vocabulary_from=None, subwords=None, initialise=str(first))
    (tmp_path / "b" / "text.txt").write_text("other letters qxz\n" * 4)
    with pytest.raises(ValueError, match="has other tokens than this run"):
        train(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "pretrain"}, "the task and the system language_model belong together|gives no batches"),
        ({"compile": True}, "activation_checkpointing, compile: both work on encoders"),
        ({"subwords": 100}, "vocabulary_from: .* without subwords"),
        ({"sources": {"x": {"manifest": "m", "task": "recognition"}}}, "gives no batches for a run whose task is 'language_model'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    data = read_yaml(ROOT / "language_model" / "tiny.yaml") | changes
    with pytest.raises(ValueError, match=message):
        config.load(TrainConfig, data)


def test_a_language_model_is_no_recogniser_and_a_recogniser_no_language_model(tmp_path: Path) -> None:
    folder = train(run_settings(tmp_path, steps=1, validate_every=0))
    for load in (systems.load, systems.load_encoder):
        with pytest.raises(ValueError, match="a language model, which neither hears nor sees"):
            load(folder)
    with pytest.raises(ValueError, match="holds a vatlm model and no language model"):
        systems.load_language_model(tmp_path / "recognizer")
