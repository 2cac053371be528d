"""Trees in the layouts of LRS2 and LRS3."""

from collections.abc import Sequence
from pathlib import Path

Words = Sequence[tuple[str, float, float]]


def clip(path: Path, words: Words, table: bool = False, content: bytes = b"video") -> Path:
    """A clip with its transcript beside it, as the releases have them; ``table``: with the times of the words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    lines = [f"Text:  {' '.join(word for word, _, _ in words).upper()}", "Conf:  4"]
    if table:
        lines += ["Ref:  x", "", "WORD START END ASDSCORE", *(f"{word.upper()} {start} {end} 5.5" for word, start, end in words)]
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    return path


def said(text: str) -> Words:
    return [(word, 0.5 * number, 0.5 * number + 0.4) for number, word in enumerate(text.split())]
