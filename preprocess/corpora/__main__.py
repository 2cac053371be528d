"""``python -m preprocess.corpora NAME ...``: write the manifest of a corpus, or make the synthetic one."""

import importlib
import sys
from collections.abc import Sequence

CORPORA = {
    "lrs3": "TED talks with transcripts, 30 or 433 hours",
    "lrs2": "BBC programmes with transcripts",
    "voxceleb2": "interviews without transcripts",
    "grid": "34 talkers, sentences of six words",
    "librispeech": "audio books with transcripts, 1,000 hours",
    "must_c": "TED talks with transcripts and translations",
    "covost2": "Common Voice with transcripts and translations",
    "voxceleb1": "interviews with the names of the speakers",
    "ljspeech": "one reader, 24 hours, for synthesis",
    "vctk": "110 readers, for synthesis and voices",
    "cmu_arctic": "speakers who read the same sentences, for converting voices",
    "speech_commands": "single words, for spotting keywords",
    "fsdd": "spoken digits",
    "audioset": "sounds with labels of 527 classes",
    "esc50": "sounds of 50 classes",
    "musan": "music, speech and noise",
    "aishell1": "Mandarin, read by 400 speakers, 178 hours",
    "aishell2": "Mandarin, read by 1,991 speakers, 1,000 hours",
    "read_aloud_mandarin": "synthetic: Mandarin sentences, said on the spot, nothing is downloaded",
    "talking_heads": "synthetic: drawn and voiced on the spot, nothing is downloaded",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the reader that is named; exit code 2 if it is not known."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print("usage: python -m preprocess.corpora NAME --root DIR --out DIR [options]   (NAME --help explains them)\n")
        print("\n".join(f"  {name:20} {what}" for name, what in CORPORA.items()))
        return 0 if given else 2
    if given[0] not in CORPORA:
        print(f"corpora: {given[0]!r} is unknown; choose one of {', '.join(CORPORA)}.", file=sys.stderr)
        return 2
    code: int = importlib.import_module(f"preprocess.corpora.{given[0]}").main(given[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
