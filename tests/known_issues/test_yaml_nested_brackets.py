"""Thousands of brackets in a configuration kept the YAML scanner busy for over ten seconds: its time grows with the square of the depth."""

import time

import pytest

from avtlm.plain_yaml import ConfigError, parse_yaml


@pytest.mark.parametrize("text", ["a: " + "[" * 20_000, '{"a":' * 5000])
def test_brackets_that_are_nested_too_deeply_are_refused_at_once(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"here, line 1: not valid YAML \(brackets are nested more than 50 deep\)"):
        parse_yaml(text, "here")
    assert time.monotonic() - start < 5


def test_brackets_of_a_sane_depth_are_read() -> None:
    assert parse_yaml("[" * 20 + "]" * 20, "here")
