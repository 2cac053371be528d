"""YAML as plain values, by the rules of YAML 1.2: ``1e-4`` is a number and only ``true`` and ``false`` are booleans.

Stricter than YAML where it protects the author: a key that stands twice and aliases are errors. No tag ever builds an object.
"""

import re
import typing
from pathlib import Path
from typing import Any

import yaml

FLOAT = re.compile(r"([-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d+([eE][-+]?\d+)?|\.(inf|Inf|INF))|\.(nan|NaN|NAN))$")

DEEPEST = 50  # brackets in brackets


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the file, the key and what was expected."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: typing.ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # none of those of YAML 1.1

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= DEEPEST:  # the scanner's time grows with the square of the depth
            raise yaml.MarkedYAMLError(problem=f"brackets are nested more than {DEEPEST} deep", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands there twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][\d_]*|0x[\da-fA-F]+)$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))  # so that the string "1e-4" is written in quotes


def parse_yaml(text: str, where: str) -> Any:
    """Plain values (never objects) from YAML text; ``where`` names its origin in a ConfigError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML ({getattr(error, 'problem', None) or type(error).__name__}).") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError if the file is missing, not YAML or not a mapping."""
    try:
        data = parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read this configuration ({getattr(error, 'strerror', None) or 'not UTF-8 text'}).") from None
    if not isinstance(data, dict | None):
        raise ConfigError(f"{path}: expected 'key: value' lines at the top level, found {data!r:.60}.")
    return data or {}


def dump_yaml(data: Any) -> str:
    """YAML text of plain values, keys in their order; any YAML reader gets strings back as strings."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)
