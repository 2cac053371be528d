"""Synthetic corpora that several comparisons over seeds learn from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from benchmarks.over_seeds import OverSeeds, Report


class OnTalkingHeads(OverSeeds):
    """A comparison on the corpus of the quickstart: that of the run in the folder ``corpus``; without one, it is made."""

    FOLDERS: ClassVar = {"corpus": ("use corpus and lips of a finished quickstart in place of making them: runs/quickstart", False)}

    def __init__(
        self,
        out: Path,
        plan: Any,
        console: Console,
        changes: Sequence[str] = (),
        earlier: Report | None = None,
        corpus: Path | None = None,
    ) -> None:
        # Not by the option's name, which is that of the plan's size.
        super().__init__(out, plan, console, changes, earlier, made=corpus)
        self.made = corpus or out
        self.lips = self.made / "lips" / "manifest.jsonl"

    def make_corpus(self) -> None:
        """Talking heads and their lips; nothing where they are made already.

        Raises:
            ValueError: there should be lips, and are none.
        """
        if self.made != self.out:
            if not self.lips.exists():
                raise ValueError(f"{self.lips}: there are no lips; run the quickstart first, or leave --corpus out.")
            return
        from preprocess.corpora.talking_heads import generate
        from preprocess.lip_roi import run

        generate(self.out / "corpus", size=self.plan.corpus)
        run(self.out / "corpus" / "manifest.jsonl", self.out / "lips", format="npy")
