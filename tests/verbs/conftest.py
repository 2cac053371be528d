"""A model and a corpus, which the tests of several verbs read."""

from pathlib import Path

import pytest

from tests.made_model import save_corpus, save_tiny_recognizer


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_recognizer(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_corpus(tmp_path_factory.mktemp("corpus"))
