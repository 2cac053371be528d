"""Synthetic corpora that several comparisons over seeds learn from: talking heads, and sentences that are read aloud."""

from pathlib import Path
from typing import Any, ClassVar

from benchmarks.over_seeds import OverSeeds


class OnTalkingHeads(OverSeeds):
    """A comparison on the corpus of the quickstart: that of the run in the folder ``corpus``; without one, it is made.

    Its plan has ``corpus``, the size of that.
    """

    FOLDERS: ClassVar = {"corpus": ("use corpus and lips of a finished quickstart in place of making them: runs/quickstart", False)}

    def __init__(self, out: Path, *given: Any, corpus: Path | None = None, **named: Any) -> None:
        # Not by the option's name, which is that of the plan's size.
        super().__init__(out, *given, made=corpus, **named)
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


class OnReadAloud(OverSeeds):
    """A comparison on a corpus that is read aloud, with units of the speech that has no transcripts in the folder ``units``.

    Its plan has ``corpus``, the size of that, and ``clusters``.

    Attributes:
        UNLABELLED: the part of the corpus with that speech.
    """

    UNLABELLED: ClassVar = "unpaired"
    SHARED: ClassVar = {
        "corpus": ("make_corpus", "have sentences read aloud"),
        "units": ("label", "cluster the sound into units"),
    }
    AFRESH: ClassVar = {"units": ("units",)}

    @property
    def corpus(self) -> Path:
        return self.out / "corpus"

    def part(self, name: str) -> Path:
        """The manifest of a part of the corpus."""
        return self.corpus / name / "manifest.jsonl"

    def make_corpus(self) -> None:
        from preprocess.corpora.read_aloud import generate

        generate(self.corpus, self.plan.corpus)

    def label(self) -> None:
        from avtlm.units.discovery import units
        from avtlm.units.kmeans import KMeansConfig

        config = KMeansConfig(clusters=self.plan.clusters, restarts=3, seed=1)
        units(self.part(self.UNLABELLED), self.out / "units", config=config, modality="a", mfcc_rate=50.0, fraction=0.5)
