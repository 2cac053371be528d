"""The commands of the README and the guides are ones that the library understands, with configurations and settings that there are."""

import argparse
import dataclasses
import importlib
import importlib.util
import re
import typing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from avtlm import cli, config
from avtlm.decoding.settings import DecodingConfig
from avtlm.plain_yaml import parse_yaml
from avtlm.training.loop import TrainConfig
from tests.page_blocks import BLOCKS, PAGES, ROOT, Block, read_commands

COMMANDS = [(block.place, words) for block in BLOCKS if block.kind == "shell" for words in read_commands(block)]
SCRIPTS = dict(re.findall(r'^(avtlm-[\w-]+) = "([\w.]+):main"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE))
EXAMPLES = {"avtlm/systems/best_rq.py", "tests/systems/test_best_rq.py"}  # files that a reader is told to make
# What stands in a line of a shell beside commands of this library.
OF_THE_SHELL = ("cd", "git", "for", "wait", "done", "export", "tensorboard")


class Understood(Exception):  # noqa: N818  # no error: what a command line is read as
    """Raised in place of running a command whose arguments are right."""


def understand(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the parser of a module read a command line, and stop there; wrong arguments end in SystemExit."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    if spec.submodule_search_locations:
        module += ".__main__"
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> NoReturn:
        raise Understood(parse(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr("sys.argv", [module, *arguments])
    with pytest.raises(Understood):
        importlib.import_module(module).main()


def understand_verb(words: list[str]) -> None:
    """The same for `avtlm VERB ...`, with the configuration, overrides and decoding settings that it names."""
    options = cli.parse(words)
    assert options.verb.split() == words[: len(options.verb.split())]
    given = getattr(options, "config", None)
    if given is not None and given.startswith("configs/"):
        config.load(TrainConfig, ROOT / given, options.overrides)
    changes = getattr(options, "decoding", [])
    if changes:
        config.load(DecodingConfig, {}, changes)


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 150


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=[f"{place}: {' '.join(words)}"[:110] for place, words in COMMANDS])
def test_the_command_is_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name, *arguments = words
    if name in ("python", "torchrun") and "-m" in arguments:
        module, *arguments = arguments[arguments.index("-m") + 1 :]
        if module == "avtlm.cli":
            understand_verb(arguments)
        elif module.split(".")[0] in ("avtlm", "benchmarks", "demos", "preprocess"):
            understand(module, arguments, monkeypatch)
        else:
            assert module in ("mkdocs", "pytest"), f"{module} is no module of this library"
    elif name == "avtlm":
        understand_verb(arguments)
    elif name in SCRIPTS:
        understand(SCRIPTS[name], arguments, monkeypatch)
    elif name == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert [target for target in arguments if target not in targets and "=" not in target] == []
    elif name == "pip":
        extras = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
        known = re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
        assert [extra for group in extras for extra in group.split(",") if extra not in known] == []
    elif name in ("bash", "sbatch", "python3"):
        assert (ROOT / arguments[0]).is_file()
    else:
        assert name in OF_THE_SHELL or re.match(r"[A-Z_]+=", name), f"{name} is no command that the documentation may give without a word"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "yaml"], ids=lambda block: block.place)
def test_the_configuration_has_known_keys(block: Block) -> None:
    kinds = typing.get_type_hints(TrainConfig)
    for part in re.split(r"\n(?=mixing:)", block.content):  # one way of several
        data = parse_yaml(part, block.place)
        assert isinstance(data, dict)
        assert [key for key in data if key not in kinds] == []
        config.load(dataclasses.make_dataclass("Part", [(key, kinds[key]) for key in data]), data)


def test_nothing_that_looks_like_a_command_escapes() -> None:
    missed = [f"{block.place}: {line}" for block in BLOCKS for line in block.content.splitlines() if block.kind in ("text", "output")]
    assert [line for line in missed if re.search(r": \$? ?(\.venv/bin/)?(avtlm|python -m|torchrun) ", line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_in_the_text_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = set(
        re.findall(r"(?<![\w/.])((?:avtlm|configs|benchmarks|preprocess|demos|tests|docs)/[\w./*-]+\.(?:py|yaml|json|md|sh|png))", text)
    )
    names = {name.rstrip(".") for name in re.findall(r"`((?:avtlm|benchmarks|preprocess|demos)\.[\w.]+)", text)}
    assert [name for name in sorted(files - EXAMPLES) if not list(ROOT.glob(name))] == []
    assert [name for name in sorted(names) if not resolves(name)] == []


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of this library, or something in one."""
    parts = name.split(".")
    cut = next(count for count in range(len(parts), 0, -1) if _is_module(".".join(parts[:count])))
    found: Any = importlib.import_module(".".join(parts[:cut]))
    for part in parts[cut:]:
        if part in getattr(found, "__dataclass_fields__", ()):
            return True
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is none
        return False
