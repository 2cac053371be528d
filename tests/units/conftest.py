"""What several tests of units share: a corpus that is only read, and an untrained encoder."""

from pathlib import Path

import pytest

from tests.made_corpus import MadeCorpus, make_corpus
from tests.units.made_encoder import save_encoder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("made"), 12)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder") / "model")
