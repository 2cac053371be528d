"""The verbs of `avtlm` that look at what is there: ``info`` at a file or folder, ``doctor`` at the installation."""

import argparse
from collections.abc import Iterable
from typing import Any

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_json
from avtlm.verbs.printing import as_json


def add_verbs(verb: AddVerb) -> None:
    """Add ``info`` and ``doctor``."""
    info = verb("info", _info, "show what a model folder, a manifest or a media file holds")
    info.add_argument("path", metavar="PATH", help="any of them")
    add_json(info)

    doctor = verb(
        "doctor", _doctor, "check this installation: versions, attention backends, extras, codecs", "Exits with 1 if it finds a problem."
    )
    add_json(doctor)


def _info(options: argparse.Namespace) -> int:
    from avtlm.info import info

    found = info(options.path)
    print(as_json(found) if options.json else "\n".join(_lines(found)))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    import dataclasses

    from avtlm.doctor import doctor

    found = dataclasses.asdict(doctor())
    print(as_json(found) if options.json else "\n".join(_lines(found)))
    return 1 if found["problems"] else 0


def _lines(value: Any, indent: str = "") -> Iterable[str]:
    """Nested dictionaries and lists as indented lines with aligned values."""
    entries = value.items() if isinstance(value, dict) else [("-", item) for item in value]
    width = max((len(str(key)) for key, item in entries if not isinstance(item, dict | list)), default=0)
    for key, item in entries:
        if isinstance(item, list) and not any(isinstance(part, dict) or len(str(part)) > 20 for part in item):
            item = ", ".join(map(str, item)) or "none"
        if isinstance(item, dict | list):
            yield f"{indent}{key}" if item else f"{indent}{key}  none"
            yield from _lines(item, indent + "  ")
        else:
            yield f"{indent}{key:<{width}}  {'-' if item is None else item}"
