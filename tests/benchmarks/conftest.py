"""What the tests of comparisons over seeds share."""

import pytest


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison runs here; as a command it starts Python anew with the settings of long trainings."""
    monkeypatch.setattr("benchmarks.over_seeds.restart_tuned", lambda module, arguments: None)
