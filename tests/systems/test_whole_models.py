"""Models that are used whole open by their task, and folders of another task say so."""

from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import config, systems
from avtlm.checkpoint import save_model
from avtlm.systems.speecht5 import SpeechT5
from avtlm.text.vocabulary import SPACE, SPECIALS, Vocabulary
from tests.made_model import save_tiny_recognizer
from tests.systems.sequence_models import speecht5

SYMBOLS = (*SPECIALS, SPACE, *"abcde", "<mask>", "<ctc_blank>")


def saved(folder: Path, kind: str, vocabulary: Vocabulary | None = None, **changes: Any) -> Path:
    model = speecht5(**changes)
    save_model(folder, model, {"system": "speecht5", "task": kind, "model": config.to_dict(model.config)}, vocabulary)
    return folder


@pytest.mark.parametrize(
    ("task", "changes"),
    [("transcription", {"task": "recognition"}), ("generation", {"task": "generation"}), ("speaker", {"task": "speaker", "speakers": 3})],
)
def test_a_model_opens_for_its_task_alone(tmp_path: Path, task: str, changes: dict[str, Any]) -> None:
    folder = saved(tmp_path / "model", task, Vocabulary(SYMBOLS), **changes)
    model, vocabulary = systems.load_whole(folder, task)
    assert isinstance(model, SpeechT5)
    assert not model.training
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in speecht5(**changes).state_dict().items())
    assert vocabulary == Vocabulary(SYMBOLS)
    for other in systems.WHOLE.keys() - {task}:
        with pytest.raises(ValueError, match=f"holds a speecht5 model for {task}; give the folder of a model for {other}"):
            systems.load_whole(folder, other)


def test_a_folder_may_have_no_vocabulary_but_not_one_of_another_model(tmp_path: Path) -> None:
    assert systems.load_whole(saved(tmp_path / "bare", "generation", task="generation"), "generation")[1] is None
    shorter = saved(tmp_path / "shorter", "generation", Vocabulary(SYMBOLS[:-2]), task="generation")
    assert len(systems.load_whole(shorter, "generation")[1] or ()) == 10
    wrong = saved(tmp_path / "wrong", "generation", Vocabulary(SYMBOLS[:-3]), task="generation")
    with pytest.raises(ValueError, match="its vocabulary has 9 symbols, but its model 12; they do not belong together"):
        systems.load_whole(wrong, "generation")


def test_other_folders_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for pretrain, which was only pre-trained; fine-tune it for generation first"):
        systems.load_whole(saved(tmp_path / "pretrained", "pretrain"), "generation")
    with pytest.raises(ValueError, match="holds a vatlm model for recognition; give the folder of a model for transcription"):
        systems.load_whole(save_tiny_recognizer(tmp_path / "recogniser"), "transcription")
