"""Texts become symbols of each task, and a lexicon with a language model decides among words."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from avtlm.config import ConfigError
from avtlm.evaluation.superb.data import Corpus, CorpusError
from avtlm.evaluation.superb.recognition import OutOfDomainRecognition, RecognitionConfig, SlotFilling, SpeechRecognition
from avtlm.evaluation.superb.task import Heard
from avtlm.evaluation.superb.tasks import find
from tests.evaluation.superb import made_corpora

ARPA = """\\data\\
ngram 1=5
ngram 2=1

\\1-grams:
-1.0\t</s>
-99\t<s>\t0.0
-9.0\tBAT\t0.0
-0.1\tBAD\t0.0
-9.0\t<unk>\t0.0

\\2-grams:
-0.1\t<s> BAD

\\end\\
"""


def corpus(folder: Path, task: str, *texts: str, **about: str) -> Corpus:
    """A corpus of texts; nothing is heard."""
    made_corpora.write_task(folder, task, **about)
    for split in ("train", "test"):
        made_corpora.write_rows(folder / f"{split}.jsonl", [{"id": f"{n}", "audio": "a.wav", "text": text} for n, text in enumerate(texts)])
    return Corpus.read(folder)


def spoken(task: SpeechRecognition, *texts: str, likely: float = 8.0) -> Heard:
    """Logits in place of features, by which each symbol of a text is heard for two frames with a blank behind it."""
    clips, rows = task.corpus.split("test"), []
    for text in texts:
        ids = [frame for token in task.vocabulary.encode(text) for frame in (token, token, 0)]
        rows.append(likely * nn.functional.one_hot(torch.tensor(ids), len(task.vocabulary)).float())
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Heard(padded, torch.tensor([len(row) for row in rows]), clips, (0,) * len(clips), 50.0)


class Given(nn.Module):
    """Gives its features out as logits."""

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return features


def test_words_are_letters_and_errors_are_counted_over_the_corpus(tmp_path: Path) -> None:
    task = SpeechRecognition(corpus(tmp_path, "ASR", "a bad day", "it's"), RecognitionConfig())
    assert task.evaluate(Given(), [spoken(task, "a bad day", "it's")], "test") == {"WER": 0.0}
    assert task.evaluate(Given(), [spoken(task, "a bat day", "it's")], "test") == {"WER": 25.0}


def test_a_language_model_over_a_lexicon_corrects_a_word_on_test(tmp_path: Path) -> None:
    (tmp_path / "words.lst").write_text("BAT\tB A T |\nBAD\tB A D |\n")
    (tmp_path / "words.arpa").write_text(ARPA)
    config = RecognitionConfig(lexicon=str(tmp_path / "words.lst"), language_model=str(tmp_path / "words.arpa"))
    task = SpeechRecognition(corpus(tmp_path / "data", "ASR", "bad"), config)
    heard = spoken(task, "bat", likely=2.0)
    heard.features[0, 6:8, task.vocabulary.encode("d")[0]] = 1.5  # nearly as likely
    found = task.evaluate(Given(), [heard], "test")
    assert found == {"WER": 100.0, "WER with language model": 0.0}
    assert task.evaluate(Given(), [heard], "dev") == {"WER": 100.0}


def test_mandarin_is_scored_by_characters_without_spaces(tmp_path: Path) -> None:
    task = OutOfDomainRecognition(corpus(tmp_path, "OOD-ASR", "你好 世界", metric="cer"), RecognitionConfig())
    assert task.evaluate(Given(), [spoken(task, "你好世好")], "test") == {"WER": 25.0}


def test_slots_are_scored_by_types_and_values(tmp_path: Path) -> None:
    task = SlotFilling(corpus(tmp_path, "SF", "play B-song hello E-song now"), RecognitionConfig())
    right = task.spelled(task.corpus.split("test")[0])
    assert task.evaluate(Given(), [spoken(task, right)], "test") == {"F1": 100.0, "CER": 0.0}
    wrong = right.replace("h e l l o", "h e l l")
    assert task.evaluate(Given(), [spoken(task, wrong)], "test") == {"F1": 100.0, "CER": 20.0}


def test_what_cannot_be_spelled_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"train\.jsonl, line 2: 1 has '5' in its text; write texts with the letters A to Z"):
        SpeechRecognition(corpus(tmp_path, "ASR", "fine", "5 apples"), RecognitionConfig())
    rows = [{"id": "a", "audio": "a.wav", "text": 3}]
    (tmp_path / "train.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(CorpusError, match="has text = 3; give text"):
        SpeechRecognition(Corpus.read(tmp_path), RecognitionConfig())


def test_a_missing_lexicon_is_said_before_anything_is_learned(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        SpeechRecognition(corpus(tmp_path, "ASR", "bad"), RecognitionConfig(lexicon=str(tmp_path / "none.lst")))


def test_a_language_model_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="set lexicon as well"):
        find("ASR")[1].configure(["language_model=x.arpa"])
