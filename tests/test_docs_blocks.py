"""Every Python block of the README and of the documentation runs, in the order of its page, and prints what the page says it prints."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.page_blocks import BLOCKS, Block, read_blocks

ON_PAGES = {place: [block for block in BLOCKS if block.page == place] for place in dict.fromkeys(block.page for block in BLOCKS)}
WITH_PYTHON = [place for place, blocks in ON_PAGES.items() if any(block.kind == "python" for block in blocks)]
# Blocks that need what no test has; each says in its page what that is.
NOT_RUN = 1


def run_page(blocks: list[Block]) -> dict[str, Any]:
    """Write the files and run the Python of one page in the working folder; returns the names that it leaves.

    A block of the kind ``output`` has to be what the block above it prints.
    """
    names: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for block in blocks:
        if block.before:
            exec(compile(block.before, f"{block.place} (before)", "exec"), names)
        if block.file is not None:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.content, encoding="utf-8")
        elif block.kind == "output":
            assert printed == block.content, block.place
        elif block.kind == "python" and block.not_run is None:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * (block.line - 1) + block.content, block.page, "exec"), names)
            printed = out.getvalue()
    return names


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder from which modules are imported; what is imported or registered is forgotten behind the test."""
    from avtlm import systems

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(systems, "SYSTEMS", dict(systems.SYSTEMS))
    threads, known = torch.get_num_threads(), set(sys.modules)
    yield tmp_path
    torch.set_num_threads(threads)
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_blocks_run_in_their_order(page: str, folder: Path) -> None:
    run_page(ON_PAGES[page])


def test_blocks_that_are_not_run_are_counted_and_say_why() -> None:
    left_out = [block for block in BLOCKS if block.not_run is not None]
    assert len(left_out) == NOT_RUN
    assert [block.place for block in left_out if len(str(block.not_run)) < 20] == []


def test_a_wrong_block_and_a_wrong_output_are_noticed(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```output\n3\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:6"):
        run_page(read_blocks(page))
    page.write_text("Text.\n\n    from avtlm import nothing_of_this_name\n")
    with pytest.raises(ImportError):
        run_page(read_blocks(page))


def test_comments_belong_to_the_block_below_them(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(
        "<!-- before:\nfrom pathlib import Path\nx = 20\n-->\n\n    import math\n    y = x + 1\n\n"
        "Text.\n\n<!-- file: settings.yaml -->\n```yaml\nseed: 1\n```\n\n"
        "<!-- not run: it would take a week -->\n```python\nraise SystemExit\n```\n"
    )
    blocks = read_blocks(page)
    assert [(block.kind, block.file, block.not_run) for block in blocks] == [
        ("python", None, None),
        ("yaml", "settings.yaml", None),
        ("python", None, "it would take a week"),
    ]
    assert run_page(blocks)["y"] == 21
    assert (folder / "settings.yaml").read_text() == "seed: 1\n"
