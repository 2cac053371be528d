"""Words that were recognised beside those that were said: errors are marked by colour, by a sign and, for screen readers, in words."""

from avtlm.evaluation.report.page import Markup, element, joined
from avtlm.evaluation.wer import align_words

# Sign, words for screen readers, CSS class.
MARKS = {"substitute": ("≠", "wrong word:", "wrong"), "delete": ("−", "missing word:", "missing"), "insert": ("+", "extra word:", "extra")}


def marked_words(reference: str, heard: str) -> Markup:
    """What was heard with its errors marked: ``≠ heard (said)``, ``− said``, ``+ heard``; words are what white space divides."""
    pieces = []
    for pair in align_words(reference, heard):
        if pair.kind == "equal":
            pieces.append(pair.hypothesis)
            continue
        sign, words, kind = MARKS[pair.kind]
        unseen, instead = element("span", f"{words} ", class_="unseen"), element("span", "instead of ", class_="unseen")
        swapped = joined([pair.hypothesis, " ", element("small", "(", instead, pair.reference, ")")])
        shown = {"wrong": swapped, "missing": pair.reference, "extra": pair.hypothesis}[kind]
        pieces.append(element("span", element("span", sign, aria_hidden="true"), " ", unseen, shown, class_=kind))
    return joined(pieces, " ")
