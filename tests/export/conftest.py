"""One audio-visual recogniser and its graphs, which the tests of this folder share: exporting takes longer than anything done with it."""

from pathlib import Path

import pytest

from avtlm.export.write import Exported, export
from tests.export.made_models import audio_visual, save


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with sound, lips, CTC and a decoder."""
    return save(audio_visual(), tmp_path_factory.mktemp("made") / "model")


@pytest.fixture(scope="session")
def exported(model: Path) -> Exported:
    """Its graphs, beside it."""
    return export(model, model.with_name("graphs"))
