"""The code blocks of the README and of the documentation, as a reader sees them: fenced ones and indented ones.

Comments in the source of a page, invisible to readers, belong to the block below. `<!-- before: ... -->` holds Python that makes what
the block takes for granted (a small model, a clip). `<!-- not run: reason -->` says that a block cannot be run where tests
run. `<!-- file: NAME -->` says that the block is the content of a file.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)(```+) *([\w-]*)")
COMMENT = re.compile(r"<!-- (before|not run|file):\s*(.*?)\s*-->", re.DOTALL)
ITEM = re.compile(r"^ *([-*]|\d+\.) ")
SHELLS = ("sh", "bash", "shell", "console")
# What blocks without a word behind the fence begin with.
FIRST = {
    "python": re.compile(r"(from|import) "),
    "shell": re.compile(r"(\.venv/bin/)?(avtlm(-[a-z-]+)?|python3?|torchrun|make|pip|git|cd|bash|sbatch|for|export|tensorboard) "),
    "yaml": re.compile(r"\w+:($| \{)", re.MULTILINE),
}


@dataclass(frozen=True)
class Block:
    """One code block.

    Attributes:
        page: path from the root of the repository.
        line: its first line of content, from 1.
        kind: ``shell``, ``python``, ``yaml``, ``output``, or ``text``, which is anything else.
        content: without its indentation.
        before: Python to run before it.
        not_run: why it is not run; None for one that is.
        file: name of the file that it is.
    """

    page: str
    line: int
    kind: str
    content: str
    before: str = ""
    not_run: str | None = None
    file: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """All blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
    return [_block(name, *found) for found in _found(text.splitlines())]


def _found(lines: list[str]) -> Iterator[tuple[int, str, list[str], str]]:
    """Line number, word behind the fence (or nothing), lines, and the comments above, of every block."""
    number, listed, comments = 0, False, ""
    while number < len(lines):
        line = lines[number]
        blank_above = number == 0 or not lines[number - 1].strip()
        if line.startswith("<!-- ") and (begun := line.split(":")[0][5:]) in ("before", "not run", "file"):
            end = next(i for i in range(number, len(lines)) if "-->" in lines[i])
            comments += "\n".join(lines[number : end + 1]) + "\n"
            assert COMMENT.search(comments), f"{begun}: the comment in line {number + 1} is not closed"
            number = end + 1
        elif fence := FENCE.match(line):
            end = next(i for i in range(number + 1, len(lines)) if lines[i].strip() == fence[2])
            yield number + 2, fence[3] or "text", [each.removeprefix(fence[1]) for each in lines[number + 1 : end]], comments
            number, comments = end + 1, ""
        elif blank_above and line.strip() and line.startswith(indent := " " * (8 if listed else 4)):
            end = number
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith(indent)):
                end += 1
            block = lines[number:end]
            while not block[-1].strip():
                block.pop()
            shift = min(len(each) - len(each.lstrip()) for each in block if each.strip())
            yield number + 1, "", [each[shift:] for each in block], comments
            number, comments = end, ""
        else:
            if line.strip():
                comments = ""
                listed = bool(ITEM.match(line)) or (listed and line.startswith("  "))
            number += 1


def _block(page: str, line: int, kind: str, lines: list[str], comments: str) -> Block:
    content = "\n".join(lines) + "\n"
    if kind in SHELLS:
        kind = "shell"
    if kind == "":
        kind = next((kind for kind, first in FIRST.items() if first.match(content)), "text")
    notes = {name: value.strip() for name, value in COMMENT.findall(comments)}
    return Block(page, line, kind, content, notes.get("before", ""), notes.get("not run"), notes.get("file"))


def read_commands(block: Block) -> list[list[str]]:
    """The commands of a shell block as a shell splits them, one list each; ``[what may be left out]`` is given, of ``one|other`` one."""
    text = re.sub(r"\\\n\s*", " ", block.content)
    text = re.sub(r"(?<= )([\w-]+)(\|[\w-]+)+(?=\s|\])", r"\1", text)
    found = []
    for line in text.splitlines():
        for part in re.split(r" && |; (?:do )?| & ", re.sub(r"(^|\s)#.*", "", line)):
            words = shlex.split(re.sub(r"(?<= )\[|\]+(?= |$)", "", part.strip().removeprefix("$ ")), comments=True)
            if words:
                found.append([words[0].removeprefix(".venv/bin/"), *words[1:]])
    return found


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
