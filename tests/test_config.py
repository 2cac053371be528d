"""Configurations come back as they were written, and every mistake is one sentence that names the key."""

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtlm import plain_yaml
from avtlm.config import ConfigError, load, to_dict, to_yaml


class Norm(enum.Enum):
    PRE = "pre"
    POST = "post"


@dataclass(frozen=True)
class Optim:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    steps: int = 10
    warmup: int | None = None

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr: {self.lr} must be above 0.")


@dataclass(frozen=True)
class Source:
    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Config:
    system: str
    optim: Optim = field(default_factory=Optim)
    norm: Norm = Norm.PRE
    masking: Literal["input", "feature"] = "input"
    layers: list[int] = field(default_factory=list)
    rates: tuple[float, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    parts: dict[str, Source] = field(default_factory=dict)
    second: Optim | None = None
    seed: int | str = 0
    verbose: bool = False
    name: str | None = None
    anything: Any = None


def error(*overrides: str, **keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(Config, {"system": "vatlm"} | keys, overrides)
    text = str(caught.value)
    assert text.endswith((".", "?"))
    assert "\n" not in text
    return text


def test_yaml_file_becomes_nested_dataclasses(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("system: vatlm\noptim: {lr: 2e-4, betas: [0.5, 0.6]}\nnorm: post\nsources:\n- {path: a/b}\n- path: c\n  weight: 2\n")
    config = load(Config, path, ["optim.steps=1e5", "shares.lip=3", "second.lr=.5", "name=", "verbose=true", "seed=abc"])
    assert config.optim == Optim(lr=2e-4, betas=(0.5, 0.6), steps=100_000)
    assert config.norm is Norm.POST
    assert config.sources == [Source(Path("a/b")), Source(Path("c"), 2.0)]
    assert config.shares == {"lip": 3.0}
    assert config.second == Optim(lr=0.5)
    assert (config.name, config.verbose, config.seed) == (None, True, "abc")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E5", 1e5), ("-.5", -0.5), (".inf", float("inf")), ("1_000", 1000), ("010", "010"), ("no", "no"), ("on", "on"),
     ("1:30", "1:30"), ("true", True), ("~", None), ("", None), ("'1e-4'", "1e-4"), ("2026-01-01", "2026-01-01")],
)  # fmt: skip
def test_values_are_read_by_the_rules_of_yaml_1_2(text: str, value: object) -> None:
    read = plain_yaml.parse_yaml(f"key: {text}", "here")["key"]
    assert read == value
    assert type(read) is type(value)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ae1-.E:#'\" yn~[{&*!|>%@`0_,?\n\t\u00e4\u4e2d")


@given(
    st.dictionaries(st.text("abc", min_size=1), st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=8), max_size=4)
)
def test_whatever_is_written_is_read_back_equal(data: dict[str, object]) -> None:
    assert plain_yaml.parse_yaml(plain_yaml.dump_yaml(data), "here") == data


def test_a_configuration_survives_yaml() -> None:
    config = Config(
        "1e-4", Optim(3e-5, warmup=4), Norm.POST, layers=[1], rates=(0.5, 2.0), sources=[Source(Path("x"))], name="yes", seed="7"
    )
    assert load(Config, plain_yaml.parse_yaml(to_yaml(config), "here")) == config
    assert load(Config, to_dict(config)) == config


def test_an_unknown_key_names_the_nearest_one() -> None:
    assert "'optim.lrr' is not known; did you mean 'optim.lr'" in error("optim.lrr=1")
    assert "'systm' is not known; did you mean 'system'" in error(systm="x")


def test_an_unknown_key_that_stands_elsewhere_is_found_there() -> None:
    assert "did you mean 'optim.warmup'" in error("warmup=1")
    assert "did you mean 'sources.*.weight'" in error("weight=1")


def test_an_unknown_key_like_no_other_lists_the_group() -> None:
    assert "the keys here are lr, betas, steps, warmup" in error("optim.zzz=1")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lr=fast", ["'optim.lr'", "'fast'", "a number"]),
        ("optim.steps=1.5", ["'optim.steps'", "1.5", "a whole number"]),
        ("optim.steps=true", ["'optim.steps'", "True", "a whole number"]),
        ("optim.warmup=x", ["'optim.warmup'", "'x'", "a whole number or null"]),
        ("optim=3", ["'optim'", "3", "a group of keys"]),
        ("optim.betas=[1]", ["'optim.betas'", "[1]", "a list (a number, a number)"]),
        ("layers=[1, b]", ["'layers.1'", "'b'", "a whole number"]),
        ("rates=0.5", ["'rates'", "0.5", "a list"]),
        ("shares.a=b", ["'shares.a'", "'b'", "a number"]),
        ("masking=output", ["'masking'", "'output'", "one of 'input', 'feature'"]),
        ("norm=both", ["'norm'", "'both'", "one of 'pre', 'post'"]),
        ("verbose=1", ["'verbose'", "1", "true or false"]),
        ("system=5", ["'system'", "5", "text"]),
        ("sources=[{weight: 1}]", ["'sources.0.path'", "missing", "a path"]),
        ("second.lr=-1", ["'second'", "lr: -1", "above 0"]),
        ("optim.lr.x=1", ["'optim.lr'", "a number"]),
    ],
)
def test_a_wrong_value_names_key_value_and_what_was_expected(override: str, parts: list[str]) -> None:
    text = error(override)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize("override", ["lr", "=3", "a..b=1", "optim.=1"])
def test_a_malformed_override_says_how_to_write_one(override: str) -> None:
    assert "write it as key=value" in error(override)


def test_a_named_group_is_taken_out_by_null() -> None:
    parts = {"speech": {"path": "a"}, "text": {"path": "b"}}
    assert list(load(Config, {"system": "vatlm", "parts": parts}, ["parts.text=null"]).parts) == ["speech"]
    assert "expected a number" in error("shares.a=null")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"key 'system' is missing; expected text"):
        load(Config, {})


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"a: [1", "line 1: not valid YAML"), (b"a: 1\na: 2", "line 2.*'a' stands there twice"), (b"- 1", "expected 'key: value' lines"),
     (b"\xff\xfe\xff", "not UTF-8"), (b"a: &x [1]\nb: *x", "line 2.*aliases"), (b"a: !!python/object/apply:os.getcwd []", "not valid YAML"),
     (b"[" * 5000, "not valid YAML"), (b"{[1]: 2}", "not valid YAML")],
)  # fmt: skip
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        load(Config, path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read this configuration \(No such file"):
        load(Config, tmp_path / "none.yaml")


def test_overrides_do_not_change_the_source() -> None:
    source = {"system": "vatlm", "optim": {"lr": 1.0}}
    load(Config, source, ["optim.lr=2"])
    assert source == {"system": "vatlm", "optim": {"lr": 1.0}}
