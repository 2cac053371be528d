"""`avtlm doctor` let xformers print six lines of warning, to reinstall it, and then said that there are no problems."""

import logging

import pytest

from avtlm import doctor


def test_xformers_is_silent_before_it_is_imported_for_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("xformers")
    level, levels = logger.level, []

    def extras() -> tuple[dict[str, str], list[str]]:
        levels.append(logger.level)
        return {}, []

    monkeypatch.setattr(doctor, "_extras", extras)
    monkeypatch.setattr(doctor, "_attention", dict)
    logger.setLevel(logging.NOTSET)
    try:
        doctor.doctor()
    finally:
        logger.setLevel(level)
    assert levels == [logging.ERROR]
