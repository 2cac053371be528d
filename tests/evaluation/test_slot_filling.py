import pytest

from avtlm.evaluation.slot_filling import slot_type_f1, slot_value_cer, slot_value_wer, slots

REFERENCE = "fly to B-city new york E-city on B-day monday E-day"


def test_slots_are_read_by_type_and_lose_marks_inside_them() -> None:
    assert slots("B-city  new york E-city and B-city rome E-city") == {"city": ["new york", "rome"]}
    assert slots("B-a x B-b y E-b E-a") == {"a": ["x y"]}
    assert slots("B-a x E-b") == {}


def test_types_are_compared_as_sets_and_averaged_over_utterances() -> None:
    pairs = [(REFERENCE, "B-city york E-city"), ("nothing", "nothing"), ("nothing", "B-a x E-a")]
    assert slot_type_f1(pairs) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_values_are_compared_with_the_nearest_of_their_type() -> None:
    pairs = [(REFERENCE, "B-city rome E-city B-city new yorks E-city")]
    assert (slot_value_cer(pairs).errors, slot_value_cer(pairs).words) == (1 + len("monday"), len("new york") + len("monday"))
    assert (slot_value_wer(pairs).errors, slot_value_wer(pairs).words) == (2, 3)


def test_marks_inside_a_value_count_in_references_only() -> None:
    """As in SUPERB's code; well-formed transcripts have none."""
    text = "B-a x B-b y E-b E-a"
    assert (slot_value_wer([(text, text)]).errors, slot_value_wer([(text, text)]).words) == (2, 4)
    assert slot_value_wer([(text, "")]).errors == 4


def test_a_corpus_without_slots_or_sentences_is_refused() -> None:
    with pytest.raises(ValueError, match="no reference holds a slot"):
        slot_value_cer([("nothing", "B-a x E-a")])
    with pytest.raises(ValueError, match="no utterance"):
        slot_type_f1([])
