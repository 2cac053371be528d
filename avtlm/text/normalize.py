"""Transcripts as the published tables score them: small rules per corpus, nothing clever.

Sources: AV-HuBERT's preparation of LRS3 (lower case, apostrophes stay), the LibriSpeech transcripts (upper-case letters and apostrophes,
no punctuation) and fairseq's letter transcripts (``T H E | C A T |``).
"""

from collections.abc import Callable


def spaces(text: str) -> str:
    """White space of any kind becomes single spaces; none at the ends."""
    return " ".join(text.split())


def lower(text: str) -> str:
    """Lower case and single spaces. The rule for LRS3 and LibriSpeech transcripts alike: both come in upper case without punctuation."""
    return spaces(text).lower()


def lrs3_file(content: str) -> str:
    """The transcript in the content of an LRS3 ``.txt`` file: what follows the first colon of its first line, in lower case.

    Raises:
        ValueError: the first line has no colon.
    """
    first = content.lstrip("\ufeff").split("\n", 1)[0]
    name, colon, text = first.partition(":")
    if not colon:
        raise ValueError(f"The first line {name[:60]!r} of an LRS3 transcript has no colon; expected a line such as 'Text: HELLO WORLD'.")
    return lower(text)


def letters(text: str) -> str:
    """Words from a letter transcript: ``T H E | C A T |`` -> ``THE CAT``."""
    return spaces("".join(text.split()).replace("|", " "))


RULES: dict[str, Callable[[str], str]] = {"spaces": spaces, "lower": lower, "letters": letters}


def normalize(text: str, rule: str = "lower") -> str:
    """``text`` by one of `RULES`.

    Raises:
        ValueError: there is no such rule.
    """
    if rule not in RULES:
        raise ValueError(f"There is no rule {rule!r} for transcripts; choose one of {', '.join(sorted(RULES))}.")
    return RULES[rule](text)
