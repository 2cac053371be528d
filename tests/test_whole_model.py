"""A whole SpeechT5 is opened, searched and evaluated as a recogniser is, and never writes a hole or a blank."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from avtlm import cli, config, systems
from avtlm.checkpoint import CheckpointError, save_model
from avtlm.data.batching import Batch
from avtlm.data.media import write_wav
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.settings import DecodingConfig, FusionConfig, RescoringConfig
from avtlm.evaluation.evaluate import evaluate
from avtlm.systems.language_model import LanguageModel, LanguageModelConfig
from avtlm.systems.speecht5 import LossConfig, SpeechT5
from avtlm.text.vocabulary import SPACE, SPECIALS, Tokenizer, Vocabulary, VocabularyError
from avtlm.transcribe import transcribe, transcribe_each
from avtlm.whole_model import WholeModel, official_decoding
from tests import made_media
from tests.made_model import save_corpus
from tests.systems.sequence_models import batch, speecht5
from tests.test_long_recordings import spoken

TEXT = [*SPECIALS, SPACE, *"abcde"]
WHOLE = Vocabulary([*TEXT, "<mask>", "<ctc_blank>"])
MASK, BLANK = 10, 11
ARPA = """\\data\\
ngram 1=8

\\1-grams:
-0.9 </s>
-99 <s>
-0.7 a
-0.9 b
-1.1 c
-0.8 d
-0.6 e
-0.9 |

\\end\\
"""
SHORT = {"max_length_ratio": 0.0, "max_length_extra": 6.0}
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"method": "ctc_greedy"},
    "prefixes": {"method": "ctc_beam", "hot_words": {"ab": 2.0, "e": 1.0}, "rescoring": RescoringConfig("lm"), "skip_blanks": 0.9},
    "words": {"method": "ctc_lexicon", "lexicon": "lexicon.txt", "hot_words": {"de c": 3.0}},
    "summed words": {"method": "ctc_lexicon", "lexicon": "lexicon.txt", "alignments": "summed"},
    "attention": {"method": "attention", "fusion": FusionConfig("lm", 0.5), "hot_words": {"ab": 2.0}, "no_repeat_ngram": 2, **SHORT},
    "attention, ranked by CTC": {"method": "attention", "ctc_weight": 0.4, "fusion": FusionConfig("tokens.arpa", 0.5, False), **SHORT},
    "joint": {"method": "joint", "ctc_weight": 0.3, "fusion": FusionConfig("lm", 0.5), "hot_words": {"e": 1.0}, **SHORT},
    "CTC alone": {"method": "joint", "ctc_weight": 1.0, "fusion": FusionConfig("lm", 0.5), **SHORT},
    "SpeechT5": {"method": "joint", "convention": "speecht5", "ctc_weight": 0.3, "fusion": FusionConfig("tokens.arpa"), **SHORT},
    "SpeechUT": {"method": "joint", "convention": "speechut", "ctc_weight": 0.3, "rescoring": RescoringConfig("lm", 0.7, 0.1), **SHORT},
}


def model(**changes: Any) -> SpeechT5:
    """One that would rather write holes and blanks than anything else."""
    losses = LossConfig(ctc=0.0 if changes.get("ctc_head") == "none" else 0.5)
    made = speecht5(task="recognition", codebook=None, units=0, losses=losses, **changes)
    with torch.no_grad():
        made.decoder.embedding.weight[[MASK, BLANK]] *= 3.0  # type: ignore[union-attr, operator, index]
        if made.ctc is not None:
            made.ctc.bias[MASK] += 2.0
    return made


def saved(folder: Path, made: SpeechT5, vocabulary: Tokenizer | None = WHOLE, task: str = "transcription", **more: Any) -> Path:
    save_model(folder, made, {"system": "speecht5", "task": task, "model": config.to_dict(made.config)}, vocabulary, **more)
    return folder


def search_files(folder: Path, vocabulary: Tokenizer) -> None:
    torch.manual_seed(3)
    language = LanguageModel(LanguageModelConfig(len(vocabulary), 16, 1, 2, 16))
    card = {"system": "language_model", "task": "language_model", "model": config.to_dict(language.config)}
    save_model(folder / "lm", language, card, vocabulary)
    (folder / "tokens.arpa").write_text(ARPA)
    (folder / "lexicon.txt").write_text("ab\ta b |\nde\td e |\nc\tc |\n")


@pytest.fixture(scope="module", params=["all symbols", "those of texts"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WholeModel:
    """From a folder whose vocabulary has ``<mask>`` and the blank, and from one whose ends before them, as SentencePiece's do."""
    vocabulary = WHOLE if request.param == "all symbols" else Vocabulary(TEXT)
    folder = saved(tmp_path_factory.mktemp("whole") / "model", model(), vocabulary)
    search_files(folder, vocabulary)
    found = systems.load(folder)
    assert isinstance(found, WholeModel)
    return found


@pytest.mark.parametrize("name", SEARCHES)
def test_no_search_writes_a_hole_or_a_blank(opened: WholeModel, name: str) -> None:
    decoding = DecodingConfig(beam=6, nbest=1 if name == "greedy" else 3, **SEARCHES[name])
    results = opened.transcribe_batch(batch("wave"), decoding)
    hypotheses = [hypothesis for result in results for hypothesis in result.hypotheses]
    assert any(hypothesis.tokens for hypothesis in hypotheses)
    assert not {MASK, BLANK} & {token for hypothesis in hypotheses for token in hypothesis.tokens}
    assert all("<" not in result.text for result in results)
    assert any(word.start is not None for result in results for word in result.words) or not any(result.words for result in results)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_clip_is_searched_as_if_it_were_alone(opened: WholeModel, name: str) -> None:
    decoding = DecodingConfig(beam=6, **SEARCHES[name])
    for row, together in enumerate(opened.transcribe_batch(batch("wave"), decoding)):
        [alone] = opened.transcribe_batch(batch("wave", row=row), decoding)
        assert alone.hypotheses[0].tokens == together.hypotheses[0].tokens
        assert alone.hypotheses[0].score == pytest.approx(together.hypotheses[0].score, abs=1e-3)


@pytest.mark.parametrize("name", ["prefixes", "joint", "CTC alone"])
def test_ctc_scores_are_those_of_its_blank(opened: WholeModel, name: str) -> None:
    """What the search calls CTC's score of a text is what the loss says with the last symbol as the blank."""
    left_out = ("rescoring", "skip_blanks", "hot_words", *SHORT)
    settings = {key: value for key, value in SEARCHES[name].items() if key not in left_out}
    decoding = DecodingConfig(beam=6, nbest=4, **settings)
    with torch.no_grad():
        encoded, lengths = opened.encode(batch("wave"))
        assert opened.heads.ctc is not None
        heard = opened.heads.ctc(encoded).double().log_softmax(-1)
    compared = 0
    for row, hypotheses in enumerate(opened.search(batch("wave"), decoding)):
        for hypothesis in hypotheses:
            if not 0 < len(hypothesis.tokens) < int(lengths[row]):
                continue  # cut off without an end
            counts = (torch.tensor([int(lengths[row])]), torch.tensor([len(hypothesis.tokens)]))
            loss = F.ctc_loss(heard[row, :, None], torch.tensor([hypothesis.tokens]), *counts, blank=BLANK, reduction="sum")
            if name == "prefixes":
                assert hypothesis.components["ctc"] <= -float(loss) + 1e-6  # holes have no part in it, and the beam is narrow
            else:
                assert hypothesis.components["ctc"] == pytest.approx(-float(loss), abs=1e-3)
            compared += 1
    assert compared > 2


def test_by_default_it_is_searched_as_by_the_official_code(tmp_path: Path) -> None:
    made = model()
    opened = systems.load(saved(tmp_path / "model", made))
    assert opened.decoding == official_decoding()
    assert (opened.decoding.method, opened.decoding.max_length_ratio, opened.decoding.max_length_extra) == ("attention", 0.0, 620.0)
    options = opened.beam_options(batch("wave"), opened.decoding)
    assert (options.min_len, options.max_len_a, options.max_len_b, options.never) == (1, 0.0, 620.0, (MASK, BLANK))
    short = replace(official_decoding(), max_length_extra=5.0)
    with torch.no_grad():
        expected = attention_beam(made.decoder, *made.encode(batch("wave")), BeamOptions(5, max_len_a=0, max_len_b=5, never=(MASK, BLANK)))  # type: ignore[arg-type]
    found = opened.search(batch("wave"), short)
    assert [row[0].tokens for row in found] == [row[0].tokens for row in expected]
    settings = DecodingConfig("joint", ctc_weight=0.5, convention="speecht5", beam=3)
    assert systems.load(saved(tmp_path / "joint", made, decoding=settings)).decoding == settings


def test_a_model_without_ctc_finds_times_where_its_decoder_looks(tmp_path: Path) -> None:
    opened = systems.load(saved(tmp_path / "model", model(ctc_head="none")))
    results = opened.transcribe_batch(batch("wave"), DecodingConfig("attention", **SHORT))
    assert any(word.start is not None for result in results for word in result.words)


def test_word_pieces_may_end_before_the_last_two_symbols(tmp_path: Path) -> None:
    from avtlm.text.subwords import Subwords

    pieces = Subwords.train(["a bad cab", "dead bee", "a bed"], 12)
    opened = systems.load(saved(tmp_path / "model", model(vocabulary=len(pieces) + 2), pieces))
    found = opened.transcribe_batch(batch("wave"), DecodingConfig("joint", ctc_weight=0.3, hot_words={"bad": 20.0}, **SHORT))
    assert all(token < len(pieces) for result in found for token in result.hypotheses[0].tokens)
    assert "bad" in " ".join(result.text for result in found).split()


# Commands ---------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "model", model(), decoding=DecodingConfig("attention", beam=3, **SHORT))  # type: ignore[arg-type]


def test_files_are_transcribed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "a.wav", made_media.chirps(1.0))
    [found] = transcribe([tmp_path / "a.wav"], folder)
    assert found.text
    assert found.duration == pytest.approx(1.0, abs=0.01)
    assert cli.main(["transcribe", str(tmp_path / "a.wav"), "--model", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == found.text
    arguments = ["transcribe", str(tmp_path / "a.wav"), "--model", str(folder), "--json", "--decoding", "method=ctc_beam"]
    assert cli.main(arguments) == 0
    assert '"start": 0.' in capsys.readouterr().out


def test_long_recordings_are_divided(folder: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", spoken(1.5, 1.4, 1.2))
    [found] = transcribe([tmp_path / "a.wav"], folder, window=4.0)
    parts = found.parts  # type: ignore[attr-defined]
    assert len(parts) == 3
    assert all(part.text for part in parts)
    assert all(word.start is not None for word in found.words)


def test_a_manifest_is_evaluated(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = save_corpus(tmp_path / "corpus")
    found = evaluate(manifest, folder, ["a"])
    assert found.wer["a"]["clean"] > 0
    assert len(found.conditions[0].texts) == 5
    assert cli.main(["evaluate", str(manifest), "--model", str(folder), "--modality", "a"]) == 0
    assert "Word error rate" in capsys.readouterr().out


# What is refused -------------------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_opened_is_said_in_a_sentence(tmp_path: Path) -> None:
    shared = {"codebook": None, "units": 0}
    speaker, speech = speecht5(task="speaker", speakers=3, **shared), speecht5(task="generation", **shared)
    cases: list[tuple[Path, type[Exception], str]] = [
        (saved(tmp_path / "speaker", speaker, task="speaker"), ValueError, "names voices and no text; give the folder of a recogniser"),
        (saved(tmp_path / "speech", speech, task="generation"), ValueError, "writes speech and no text; give the folder"),
        (saved(tmp_path / "pretrained", speecht5(), task="pretrain"), ValueError, "a pre-trained encoder without a recogniser"),
        (saved(tmp_path / "bare", model(), None), VocabularyError, "its vocabulary.json is missing; convert it again with --vocabulary"),
        (saved(tmp_path / "other", model(), Vocabulary([*SPECIALS, "a"])), ValueError, "has 5 symbols, but its model 12"),
        (tmp_path / "nothing", CheckpointError, "there is no such model"),
    ]
    sound = tmp_path / "a.wav"
    write_wav(sound, made_media.chirps(0.5))
    for folder, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            transcribe([sound], folder)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")
    with pytest.raises(ValueError, match="the vocabulary has 5 symbols, but the model knows 12"):
        WholeModel(model(), Vocabulary([*SPECIALS, "a"]))


def test_what_does_not_fit_the_model_is_said_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    opened = systems.load(folder)
    search_files(tmp_path / "model", Vocabulary([*SPECIALS, "x"]))
    bare = WholeModel(model(ctc_head="none"), WHOLE)
    cases: list[tuple[WholeModel, dict[str, Any], str]] = [
        (opened, {"method": "joint", "ctc_weight": 0.3, "beam": 13}, "beam: 13 is larger than the vocabulary of 12 tokens"),
        (opened, {"method": "transducer"}, "this model has no transducer"),
        (opened, {"method": "attention", "hot_words": {"xyz": 1.0}}, "which this model cannot write"),
        (opened, {"method": "attention", "fusion": FusionConfig("lm")}, "was trained on other tokens"),
        (opened, {"method": "attention", "official_length_limit": True}, "models of waveforms have none; set false"),
        (bare, {"method": "ctc_greedy"}, "this model has no CTC head"),
        (bare, {"method": "joint", "ctc_weight": 0.3}, "this model has no CTC head"),
    ]
    for made, wrong, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            made.search(batch("wave"), DecodingConfig(**wrong))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="this model has no CTC head"):
        WholeModel(model(ctc_head="none"), WHOLE, DecodingConfig("ctc_greedy"))


def test_lips_cannot_be_asked_for(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this model hears only; choose a"):
        list(transcribe_each([tmp_path / "a.wav"], folder, "v"))


def test_an_utterance_without_frames_is_empty(opened: WholeModel) -> None:
    for settings in SEARCHES.values():
        found = opened.open_search(DecodingConfig(beam=6, **settings))(torch.randn(2, 5, 16), torch.tensor([0, 5]))
        assert found[0][0].tokens == ()


def test_a_batch_without_sound_is_refused(opened: WholeModel) -> None:
    with pytest.raises(ValueError, match="neither speech nor text to read"):
        opened.search(Batch(("a",), "recognition"))
