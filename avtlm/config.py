"""Configurations: nested dataclasses mirrored by YAML, dotted overrides such as ``optim.lr=1e-4``, and errors that name the key."""

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from avtlm.plain_yaml import ConfigError, dump_yaml, parse_yaml, read_yaml

__all__ = ["ConfigError", "apply_overrides", "describe", "load", "to_dict", "to_yaml"]

T = TypeVar("T")


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``data`` in which each ``a.b=value`` is set; values are read as YAML. Raises ConfigError."""
    result = {key: apply_overrides(value, ()) if isinstance(value, Mapping) else value for key, value in data.items()}
    for override in overrides:
        key, equals, text = override.partition("=")
        *groups, name = key.split(".")
        if not equals or not all([*groups, name]):
            raise ConfigError(f"override '{override}': write it as key=value, for example optim.lr=1e-4.")
        node = result
        for group in groups:
            node[group] = node = {} if node.get(group) is None else node[group]
            if not isinstance(node, dict):
                raise ConfigError(f"override '{override}': '{group}' holds {node!r:.60} and no keys of its own.")
        node[name] = parse_yaml(text, f"override '{override}'")
    return result


def load(cls: type[T], source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> T:
    """Build the dataclass ``cls`` from a YAML file or a mapping. A named group that is null is left out (``sources.text=null``).

    Raises:
        ConfigError: an unknown or missing key, a wrong type or value.
    """
    where = "configuration" if isinstance(source, Mapping) else str(source)
    data = apply_overrides(source if isinstance(source, Mapping) else read_yaml(source), overrides)
    try:
        return _build(cls, data, "", cls)
    except ConfigError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from None  # names of keys may hold line breaks


def _keys(cls: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key below a dataclass, also inside optional groups and, with a star for the name or number, inside containers."""
    for name, kind in typing.get_type_hints(cls).items():
        yield prefix + name
        many = typing.get_origin(kind) in (dict, list, tuple, Mapping, Sequence)
        for part in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(part) and part is not cls:
                yield from _keys(part, f"{prefix}{name}.{'*.' if many else ''}")


def _build(kind: Any, value: Any, key: str, root: Any) -> Any:
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    wrong = ConfigError(f"key '{key}' is {value!r:.80}; expected {describe(kind)}.")
    if dataclasses.is_dataclass(origin) and isinstance(value, Mapping):
        hints, fields, prefix = typing.get_type_hints(origin), dataclasses.fields(origin), f"{key}." if key else ""
        names = [field.name for field in fields if field.init]
        for name in value:
            if name not in names:  # the nearest key of this group, else one of the same name elsewhere, else all keys of the group
                near = [prefix + match for match in difflib.get_close_matches(str(name), names, 1)]
                near += [other for other in _keys(root) if other.rpartition(".")[2] == name][:1]
                hint = f"did you mean '{near[0]}'?" if near else f"the keys here are {', '.join(names)}."
                raise ConfigError(f"key '{prefix}{name}' is not known; {hint}")
        built = {name: _build(hints[name], item, prefix + name, root) for name, item in value.items()}
        for field in fields:
            if field.init and field.name not in value and field.default is field.default_factory is dataclasses.MISSING:
                raise ConfigError(f"key '{prefix}{field.name}' is missing; expected {describe(hints[field.name])}.")
        try:
            return typing.cast(Any, origin)(**built)
        except ValueError as error:  # from __post_init__
            raise ConfigError(f"{f'key {key!r}: ' if key else ''}{error}") from error
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        groups = [part for part in arguments if dataclasses.is_dataclass(part)]
        for part in groups if len(groups) == 1 and isinstance(value, Mapping) else arguments:
            try:
                return _build(part, value, key, root)
            except ConfigError as error:
                wrong = error if part in groups and len(groups) == 1 and isinstance(value, Mapping) else wrong
        raise wrong
    if origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        if origin is not tuple or arguments[1:] == (...,):
            arguments = (arguments[0] if arguments else Any,) * len(value)
        if len(arguments) == len(value):
            items = [_build(part, item, f"{key}.{index}", root) for index, (part, item) in enumerate(zip(arguments, value))]
            return items if origin is list else tuple(items)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        name_kind, item_kind = arguments or (Any, Any)
        named = dataclasses.is_dataclass(item_kind)
        kept = {k: v for k, v in value.items() if v is not None or not named}
        return {_build(name_kind, k, f"{key}.{k}", root): _build(item_kind, v, f"{key}.{k}", root) for k, v in kept.items()}
    if origin is typing.Literal and any(value == choice and type(value) is type(choice) for choice in arguments):
        return value
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        for member in origin:
            if value in (member, member.value, member.name):
                return member
    elif origin is Path and isinstance(value, str | Path):
        return Path(value)
    elif origin in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if origin is float or (value == value and abs(value) != float("inf") and int(value) == value):  # 1e5 is a fine number of steps
            return origin(value)
    elif origin is Any or (isinstance(origin, type) and not dataclasses.is_dataclass(origin) and type(value) is origin):
        return value
    raise wrong


def describe(kind: Any) -> str:
    """A type in words for an error, such as ``a number or null`` or ``one of 'pre', 'post'``."""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return f"one of {', '.join(repr(member.value) for member in origin)}"
    if origin in (list, tuple, Sequence):
        return f"a list ({', '.join('...' if part is ... else describe(part) for part in arguments)})"
    group = "a group of keys"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null", Path: "a path", dict: group}
    return words.get(origin, group if dataclasses.is_dataclass(origin) else str(origin))


def to_dict(config: Any) -> Any:
    """Plain dictionaries, lists and scalars from a configuration; ``load`` turns them back into an equal object."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init}
    if isinstance(config, Mapping):
        return {to_dict(key): to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(item) for item in config]
    return config.value if isinstance(config, enum.Enum) else str(config) if isinstance(config, Path) else config


def to_yaml(config: Any) -> str:
    """YAML text of a configuration, keys in the order of the dataclass."""
    return dump_yaml(to_dict(config))
