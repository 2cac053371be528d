"""Texts to units: lines do not depend on each other, silences are those of the seed, words that are missing are counted."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm import systems
from avtlm.units.generators import BATCH_SYMBOLS, ModelUnits, PhonemeUnits, _batches, open_generator
from avtlm.units.phonemes import Lexicon, Phonemizer, PronunciationConfig, kaldi_phones
from tests.made_model import save_tiny_recognizer
from tests.units.made_text2unit import lines, save_fast, save_seq2seq

KALDI = {"<UNK>": ("SPN_S",), "A": ("AH0_S",), "THE": ("DH_B", "AH0_E"), "CAT": ("K_B", "AE1_I", "T_E")}


@pytest.fixture(scope="module", params=["fast", "seq2seq", "characters"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / request.param
    if request.param == "fast":
        return save_fast(place)
    return save_seq2seq(place, None) if request.param == "characters" else save_seq2seq(place)


def rows(found: list[np.ndarray | None]) -> list[list[int]]:
    return [[] if row is None else row.tolist() for row in found]


def test_a_line_gives_the_same_units_alone_and_among_others(folder: Path) -> None:
    texts = lines(14)
    names = [f"t-{number}" for number in range(14)]
    together = rows(open_generator(folder)(texts, names))
    assert rows(open_generator(folder)(texts[::-1], names[::-1]))[::-1] == together
    assert rows(open_generator(folder)(texts[5:6], names[5:6])) == together[5:6]
    assert all(row and all(0 <= unit < 12 for unit in row) for row in together)


@given(st.lists(st.integers(1, 5000), max_size=80))
@settings(max_examples=60, deadline=None)
def test_batches_hold_every_line_once_in_powers_of_two_and_not_too_much(lengths: list[int]) -> None:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    found = _batches(order, lengths)
    assert sorted(place for batch in found for place in batch) == sorted(order)
    for batch in found:
        assert len(batch).bit_count() == 1
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= BATCH_SYMBOLS


def test_units_are_named_by_their_numbers(folder: Path) -> None:
    assert open_generator(folder).symbols == [str(unit) for unit in range(12)]


def test_the_seed_draws_the_silences(tmp_path: Path) -> None:
    folder = save_fast(tmp_path / "model")
    found = [rows(open_generator(folder, seed=seed)(lines(12), list(map(str, range(12))))) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_another_model_lexicon_or_seed_has_another_identity(tmp_path: Path) -> None:
    folder = save_fast(tmp_path / "model")
    other = tmp_path / "other.txt"
    other.write_text("THE DH AH\n")
    identities = [
        open_generator(folder).identity,
        open_generator(folder, seed=1).identity,
        open_generator(folder, changes={"silence_probability": 0.5}).identity,
        open_generator(folder, lexicon=other).identity,
        open_generator(save_seq2seq(tmp_path / "second")).identity,
        open_generator(save_seq2seq(tmp_path / "second"), beam=2).identity,
    ]
    assert len(set(identities)) == len(identities)
    assert open_generator(folder).identity == identities[0]


def test_lines_with_missing_words_are_left_out_or_noise(tmp_path: Path) -> None:
    folder = save_fast(tmp_path / "model")
    generator = open_generator(folder)
    found = generator(["the zebra", "the cat"], ["a", "b"])
    assert [row is None for row in found] == [True, False]
    assert generator.counts.missing.listed() == [("zebra", 1)]
    noisy = open_generator(folder, changes={"unknown": "spn"})
    assert all(row is not None for row in noisy(["the zebra", "the cat"], ["a", "b"]))
    assert noisy.counts.unknown == {"SPN": 1}


def test_characters_that_the_model_lacks_are_counted(tmp_path: Path) -> None:
    generator = open_generator(save_seq2seq(tmp_path / "model", None))
    generator(["the cat?"], ["a"])
    assert generator.counts.unknown == {"?": 1}
    with pytest.raises(ValueError, match="reads characters, so that it needs no lexicon"):
        open_generator(save_seq2seq(tmp_path / "model", None), lexicon="l.txt")


def test_a_beam_finds_no_worse_units(tmp_path: Path) -> None:
    folder = save_seq2seq(tmp_path / "model")
    model, vocabulary = systems.load_text2unit(folder)
    assert isinstance(open_generator(folder, beam=3), ModelUnits)
    found = rows(open_generator(folder, beam=3)(lines(4), list("abcd")))
    assert all(found)
    assert len(vocabulary) == model.config.vocabulary  # type: ignore[union-attr]


def test_phones_become_units_with_silences_and_durations() -> None:
    phonemizer = Phonemizer(PronunciationConfig(unknown="spn"), Lexicon(KALDI))
    generator = PhonemeUnits(phonemizer, seed=3)
    (units,) = generator(["the zebra"], ["x"])
    assert units is not None
    names = [kaldi_phones()[unit] for unit in units.tolist()]
    order = [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]
    assert [name for name in order if name != "SIL"] == ["DH_B", "AH0_E", "SPN_S"]
    assert (names[0], names[-1]) == ("SIL", "SIL")
    bare = PhonemeUnits(phonemizer, seed=3, durations=False)(["the"], ["x"])[0]
    assert bare is not None
    assert [kaldi_phones()[unit] for unit in bare.tolist()] == ["SIL", "DH_B", "AH0_E", "SIL"]


def test_a_phone_outside_of_the_dictionary_is_named() -> None:
    generator = PhonemeUnits(Phonemizer(PronunciationConfig(unknown="spn"), Lexicon(KALDI)), ["SIL", "DH_B"])
    with pytest.raises(ValueError, match="line 'x': the phone 'AH0_E' is not in the dictionary of 2 units; add it there"):
        generator(["the"], ["x"])


def test_phones_of_ipa_need_a_dictionary() -> None:
    pytest.importorskip("espeakng_loader")
    with pytest.raises(ValueError, match="phones in IPA have no numbers by themselves; give their list with --dictionary"):
        open_generator(changes={"alphabet": "ipa"})
    assert open_generator().symbols == kaldi_phones()


def test_a_line_that_is_too_long_in_phones_is_left_out() -> None:
    generator = PhonemeUnits(Phonemizer(PronunciationConfig(unknown="spn"), Lexicon(KALDI)))
    assert generator(["the cat " * 200], ["x"]) == [None]


def test_other_folders_are_refused_and_a_generator_is_no_recogniser(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a vatlm model and none that writes units"):
        open_generator(save_tiny_recognizer(tmp_path / "recognizer"))
    folder = save_fast(tmp_path / "model")
    for load in (systems.load, systems.load_encoder):
        with pytest.raises(ValueError, match="a model that writes units for text, which neither hears nor sees"):
            load(folder)
