"""Options that several verbs have, worded once: each function adds one of them."""

import argparse

from avtlm.files import DEFAULT_MODEL


def add_model(verb: argparse.ArgumentParser) -> None:
    """Add --model, which may be left out."""
    verb.add_argument("--model", metavar="DIR", default=DEFAULT_MODEL, help=f"a model folder (default: {DEFAULT_MODEL})")


def add_split(verb: argparse.ArgumentParser, default: str = "test", what: str = "which split") -> None:
    """Add --split. In place of the word all, verbs get None, by which the library means every split."""
    verb.add_argument("--split", type=_split, default=default, help=f"{what}, or all (default: {default})")


def add_decoding(verb: argparse.ArgumentParser) -> None:
    """Add --decoding."""
    search = "change a decoding setting of the model: --decoding beam=20 (docs/decoding.md); may be given several times"
    verb.add_argument("--decoding", metavar="KEY=VALUE", action="append", default=[], help=search)


def add_device(verb: argparse.ArgumentParser) -> None:
    """Add --device."""
    verb.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")


def add_json(verb: argparse.ArgumentParser) -> None:
    """Add --json without a file."""
    verb.add_argument("--json", action="store_true", help="print JSON")


def _split(name: str) -> str | None:
    return None if name == "all" else name
