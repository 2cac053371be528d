"""Claims about transcripts: words with times, JSON and subtitles."""

import json
import math

import pytest
import torch

from avtlm.decoding.greedy import ctc_greedy
from avtlm.decoding.result import Hypothesis, Transcript, Word, transcript
from avtlm.text.subwords import Subwords
from avtlm.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary.characters(["abc"])


def spoken(frames):
    """Log-probabilities in which each frame's character has probability 0.8; '-' is the blank."""
    ids = [VOCABULARY.encode(letter)[0] if letter in "abc" else (4 if letter == "|" else 0) for letter in frames]
    probabilities = torch.full((1, len(ids), len(VOCABULARY)), 0.2 / (len(VOCABULARY) - 1))
    probabilities[0, torch.arange(len(ids)), torch.tensor(ids)] = 0.8
    return probabilities.log()


def test_words_have_the_times_of_their_frames_and_the_mean_posterior_of_their_letters():
    log_probs = spoken("--aab-|-cc--")
    result = transcript(ctc_greedy(log_probs, torch.tensor([12])), VOCABULARY, duration=0.48)
    assert result.text == "ab c"
    assert [(word.text, word.start, word.end) for word in result.words] == [("ab", 0.08, 0.2), ("c", 0.32, 0.4)]
    assert [word.confidence for word in result.words] == pytest.approx([0.8, 0.8])


def test_the_words_of_a_transcript_spell_its_text_for_word_pieces_too():
    subwords = Subwords.train(["one two three", "two one four"] * 20, size=14)
    tokens = tuple(subwords.encode("two three one"))
    hypothesis = Hypothesis(tokens, -1.0, timesteps=tuple((i, i + 1) for i in range(len(tokens))), token_scores=(-0.1,) * len(tokens))
    result = transcript([hypothesis], subwords)
    assert [word.text for word in result.words] == result.text.split() == ["two", "three", "one"]
    assert result.words[0].end == result.words[1].start


def test_json_is_strict_and_complete():
    hypotheses = [
        Hypothesis((5, 4, 6), -1.25, {"attention": -2.5}, token_scores=(-0.5, -0.1, 0.3)),
        Hypothesis((), -math.inf, {"attention": -math.inf}),
    ]
    read = json.loads(transcript(hypotheses, VOCABULARY, timings={"decode": 0.12345}).to_json())
    assert read["text"] == "a b"
    assert read["words"][0] == {"word": "a", "start": None, "end": None, "confidence": 0.607}
    assert read["words"][1]["confidence"] == 1.0
    assert read["hypotheses"][1] == {"text": "", "tokens": [], "score": None, "components": {"attention": None}}
    assert read["timings"] == {"decode": 0.123}


def test_subtitles_break_at_pauses_and_after_six_seconds():
    words = [Word("bin", 0.2, 0.5, 1.0), Word("blue", 0.5, 0.9, 1.0), Word("now", 2.0, 2.4, 1.0)]
    result = Transcript("bin blue now", tuple(words))
    assert result.to_srt() == "1\n00:00:00,200 --> 00:00:00,900\nbin blue\n\n2\n00:00:02,000 --> 00:00:02,400\nnow\n"
    assert result.to_vtt().startswith("WEBVTT\n\n00:00:00.200 --> 00:00:00.900\nbin blue\n")
    steady = Transcript("x " * 40, tuple(Word("x", i * 0.5, i * 0.5 + 0.4) for i in range(40)))
    assert all(end - start <= 6.0 for start, end, _ in steady.cues())
    long = Transcript("y", tuple(Word("y" * 20, i * 0.1, i * 0.1 + 0.1) for i in range(9)))
    assert all(len(text) <= 84 for _, _, text in long.cues())


def test_clock_times_carry_over_and_signs_are_escaped_in_vtt():
    result = Transcript("a<b & c", (), duration=3661.9996)
    assert "01:01:02,000" in result.to_srt()
    assert "a<b & c" in result.to_srt()
    assert "a&lt;b &amp; c" in result.to_vtt()


def test_subtitles_without_times_need_the_length_of_the_clip():
    with pytest.raises(ValueError, match="has neither"):
        Transcript("hello", (Word("hello"),)).to_srt()
    assert Transcript("hello", (Word("hello"),), duration=2.0).cues() == [(0.0, 2.0, "hello")]
    assert Transcript("", ()).to_srt() == ""
    with pytest.raises(ValueError, match="at least one hypothesis"):
        transcript([], VOCABULARY)
