"""Word errors are marked by colour, by a sign and in words, and nothing that was typed or recognised becomes markup."""

import re

import pytest

from demos.error_marks import cards, hint, marked, notice, plain_words, problem, score

TEXTS = {"a": "set blue now", "v": "set red in", "av": "set red in now please"}


def seen(markup: str) -> str:
    """What is on the screen: no tags, nothing that only screen readers get."""
    return " ".join(re.sub("<[^>]*>", "", re.sub(r'<span class="unseen">[^<]*</span>', "", markup)).split())


def test_right_words_are_not_marked() -> None:
    assert marked("set red", "set red") == "set red"


def test_every_kind_of_error_has_a_sign_a_class_and_words_for_screen_readers() -> None:
    wrong, missing, extra = marked("set red in", "set blue in"), marked("set red in", "set in"), marked("set in", "set red in")
    assert seen(wrong) == "set ≠ blue (red) in"
    assert seen(missing) == "set − red in"
    assert seen(extra) == "set + red in"
    for markup, kind, words in ((wrong, "wrong", "wrong word: "), (missing, "missing", "missing word: "), (extra, "extra", "extra word: ")):
        assert f'class="{kind}"' in markup
        assert f'<span class="unseen">{words}</span>' in markup
        assert markup.count('aria-hidden="true"') == 1  # the sign is not read out


def test_without_a_reference_words_stay_as_they_are() -> None:
    assert marked("", "set red") == "set red"
    assert "nothing recognised" in marked("", " ")
    assert score("  ", "set red") is None


def test_nothing_recognised_is_all_words_missing() -> None:
    assert seen(marked("set red", "")) == "− set − red"
    assert str(score("set red", "")) == "100 %"


@pytest.mark.parametrize("text", ["Set red, now!", "SET  RED\nNOW", "set-red now."])
def test_case_and_punctuation_do_not_count(text: str) -> None:
    assert plain_words(text) == "set red now"
    found = score(text, "set red now")
    assert found is not None
    assert (found.errors, found.words) == (0, 3)


def test_apostrophes_stay() -> None:
    assert plain_words("I don’t") == "i don't"


def test_markup_in_texts_is_shown_not_obeyed() -> None:
    evil = "<script>x</script> & \"'"
    everything = cards(evil, dict.fromkeys("av", evil) | {"av": evil}) + problem(evil) + notice(evil) + hint(evil)
    assert "<script" not in everything
    assert "&lt;script&gt;" in problem(evil)


def test_three_cards_carry_their_error_rates() -> None:
    markup = cards("set red in now", TEXTS, "a remark")
    assert re.findall(r'data-modality="(\w+)"', markup) == ["a", "v", "av"]
    assert re.findall(r"<b>(\d+ %)</b><span>(\d of \d) words", markup) == [("50 %", "2 of 4"), ("25 %", "1 of 4"), ("25 %", "1 of 4")]
    assert "a remark" in markup
    assert 'aria-live="polite"' in markup


def test_cards_without_a_reference_have_no_rates() -> None:
    markup = cards("", TEXTS)
    assert "WER" not in markup
    assert "Type what was said" in markup
