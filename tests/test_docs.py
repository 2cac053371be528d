"""The commands of the README and the guides are ones that the library understands, with configurations and settings that there are."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from avtlm import cli, config
from avtlm.decoding.settings import DecodingConfig
from avtlm.training.loop import TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The indented command lines of a page as a shell reads them; ``[what may be left out]`` is given."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    lines = re.findall(r"^ {4,}(?:\.venv/bin/)?((?:avtlm|python|torchrun) .*)$", text, flags=re.MULTILINE)
    return [shlex.split(re.sub(r"(?<= )\[|\]+(?= |$)", "", line), comments=True) for line in lines]


COMMANDS = [(page.name, " ".join(words), words) for page in PAGES for words in commands(page)]


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("words", [words for *_, words in COMMANDS], ids=[f"{page}: {line}"[:100] for page, line, _ in COMMANDS])
def test_the_command_is_understood(words: list[str]) -> None:
    if words[0] in ("python", "torchrun"):
        module = words[words.index("-m") + 1]
        assert importlib.util.find_spec(module) is not None
        if module != "avtlm.cli":
            return
        words = words[words.index("-m") + 1 :]
    options = cli.parse(words[1:])
    assert options.verb.split() == words[1 : 1 + len(options.verb.split())]
    given = getattr(options, "config", None)
    if given is not None and given.startswith("configs/"):
        config.load(TrainConfig, ROOT / given, options.overrides)
    changes = getattr(options, "decoding", [])
    if changes:
        config.load(DecodingConfig, {}, changes)
