"""All tasks of the benchmark by name: where they are defined, and the settings of their published recipes (s3prl's configurations)."""

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from avtlm import config
from avtlm.evaluation.superb.task import Search, Task

HERE = "avtlm.evaluation.superb"


@dataclass(frozen=True)
class Kind:
    """A task.

    Attributes:
        module, task, config: where its class and that of its settings are.
        about: what it asks, in some words.
        settings: of the recipe, where they differ from the class's defaults.
        cross_validated: it has folds instead of splits.
    """

    module: str
    task: str
    config: str
    about: str
    settings: dict[str, Any]
    cross_validated: bool = False

    def task_class(self) -> type[Task[Any]] | type[Search[Any]]:
        found: type[Task[Any]] | type[Search[Any]] = getattr(importlib.import_module(f"{HERE}.{self.module}"), self.task)
        return found

    def configure(self, overrides: Sequence[str] = ()) -> Any:
        """The settings, changed by ``key=value``. Raises ConfigError."""
        cls: type[Any] = getattr(importlib.import_module(f"{HERE}.{self.module}"), self.config)
        return config.load(cls, self.settings, overrides)


TASKS = {
    "SID": Kind(
        "classification",
        "SpeakerIdentification",
        "ClassificationConfig",
        "who of 1,251 people speaks",
        {"steps": 200_000, "batch": 8, "accumulation": 4, "crop_seconds": 8.0},
    ),
    "ASV": Kind(
        "verification",
        "SpeakerVerification",
        "VerificationConfig",
        "whether two clips are of one speaker",
        {"steps": 200_000, "batch": 10, "accumulation": 5, "crop_seconds": 8.0, "optimizer": "adamw", "evaluate_every": 20_000},
    ),
    "SD": Kind(
        "diarization",
        "SpeakerDiarization",
        "DiarizationConfig",
        "who speaks when, of two",
        {"steps": 30_000, "batch": 8, "accumulation": 4, "crop_seconds": 20.0},
    ),
    "PR": Kind(
        "recognition",
        "PhonemeRecognition",
        "PhonemeConfig",
        "phonemes",
        {"steps": 100_000, "batch": 16, "accumulation": 2, "lr": 1e-2},
    ),
    "ASR": Kind("recognition", "SpeechRecognition", "RecognitionConfig", "English words", {"steps": 200_000, "batch": 32}),
    "OOD-ASR": Kind(
        "recognition",
        "OutOfDomainRecognition",
        "RecognitionConfig",
        "words of other languages and of conversations",
        {"steps": 500_000, "batch": 16, "tanh": True},
    ),
    "KS": Kind("classification", "KeywordSpotting", "ClassificationConfig", "which of ten keywords", {"steps": 200_000, "batch": 32}),
    "QbE": Kind("spoken_terms", "SpokenTermDetection", "SearchConfig", "which recordings hold a spoken query", {}),
    "IC": Kind("classification", "IntentClassification", "ClassificationConfig", "what is wanted", {"steps": 200_000, "batch": 32}),
    "SF": Kind("recognition", "SlotFilling", "RecognitionConfig", "words and the slots they fill", {"steps": 200_000, "batch": 32}),
    "ER": Kind(
        "classification",
        "EmotionRecognition",
        "ClassificationConfig",
        "which of four emotions",
        {"steps": 30_000, "batch": 4, "accumulation": 8},
        cross_validated=True,
    ),
    "ST": Kind("translation", "Translation", "TranslationConfig", "the German for English speech", {}),
    "SE": Kind("separation", "Enhancement", "EnhancementConfig", "a voice without its noise", {}),
    "SS": Kind("separation", "Separation", "SeparationConfig", "two voices that speak at once", {}),
}


def find(name: str) -> tuple[str, Kind]:
    """A task by its name, whatever its case. Raises ConfigError naming the tasks there are."""
    by_lower = {known.lower(): known for known in TASKS}
    if name.lower() in by_lower:
        known = by_lower[name.lower()]
        return known, TASKS[known]
    near = difflib.get_close_matches(name.lower(), by_lower, 1)
    hint = f"did you mean {by_lower[near[0]]}?" if near else f"choose one of {', '.join(TASKS)}."
    raise config.ConfigError(f"task: {name!r} is unknown; {hint}")
