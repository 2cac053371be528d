"""How verbs speak: one sentence on standard error for what is wrong, JSON on standard output for programs."""

import json
import sys
from typing import Any


def wrong(sentence: str) -> int:
    """Say what is wrong about the arguments; returns the exit code for that."""
    print(f"avtlm: {sentence}", file=sys.stderr)
    return 2


def sentence(error: Exception) -> str:
    """What the user needs to know. Errors that are not meant for users are called what they are: a fault of the library."""
    from avtlm.errors import MissingExtra

    if isinstance(error, OSError) and error.strerror:
        return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}."
    if isinstance(error, ValueError | MissingExtra | FloatingPointError) and str(error):
        return " ".join(str(error).split())
    reason = " ".join(str(error).split())[:300]
    return f"unexpected {type(error).__name__}: {reason} (run it again with --debug to see where, and please report it)"


def as_json(values: Any) -> str:
    """Indented, with letters of all alphabets as they are."""
    return json.dumps(values, indent=2, ensure_ascii=False)
