"""The verbs of `avtlm`, by what they are around: what each is asked, and what it does. cli.py lists them.

What several share is in options.py (what they are asked) and printing.py (how they answer).
"""

import argparse
from collections.abc import Callable
from typing import Protocol


class AddVerb(Protocol):
    """Adds a verb by its name, the function that it runs, a line for the list of verbs, and what its own help says besides."""

    def __call__(self, name: str, run: Callable[[argparse.Namespace], int], summary: str, more: str = "") -> argparse.ArgumentParser: ...
