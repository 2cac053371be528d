"""Official code replayed: one adapter for each kind of case, and the report of a case.

An adapter builds what a case needs from its ``case.json`` alone, feeds the inputs, and tells a `Check` what it found. A new system adds a
module beside these and its adapters to ADAPTERS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from avtlm.convert.options import OptionError
from benchmarks.replay import (
    avhubert,
    beam_search,
    checkpoints,
    decoding,
    evaluation,
    fine_tuned,
    lips,
    metrics,
    mmspeech,
    mt2kd,
    multistage,
    preparation,
    speech2c,
    speech_encoders,
    speechlm,
    speechlm_data,
    speecht5,
    speecht5_data,
    speecht5_search,
    speecht5_transformers,
    speechut,
    teachers,
    text_preparation,
    transformers_models,
    zipformer,
)
from benchmarks.replay.case import Case, CaseError, Check, Comparison, read_case


@dataclass(frozen=True)
class Adapter:
    """Which cases it is for, and how it replays them."""

    fits: Callable[[Case], bool]
    replay: Callable[[Case, Check], None]


ADAPTERS = [
    Adapter(fits, replay)
    for part in (
        avhubert,
        checkpoints,
        preparation,
        lips,
        decoding,
        beam_search,
        evaluation,
        metrics,
        speech_encoders,
        fine_tuned,
        transformers_models,
        speecht5,
        speecht5_data,
        speecht5_search,
        speecht5_transformers,
        speech2c,
        speechlm,
        speechlm_data,
        speechut,
        text_preparation,
        mmspeech,
        teachers,
        mt2kd,
        zipformer,
        multistage,
    )
    for fits, replay in part.ADAPTERS
]


@dataclass(frozen=True)
class Report:
    """How a case went.

    Attributes:
        comparisons: by tensor, in the order in which they were made.
        skipped: tensors that were not compared, and why.
        failure: why the case could not be run at all, or not to its end.
    """

    case: str
    tolerance: Any
    comparisons: list[Comparison]
    skipped: dict[str, str]
    failure: str | None = None

    @property
    def passed(self) -> bool:
        return self.failure is None and bool(self.comparisons) and all(each.passed for each in self.comparisons)

    @property
    def max_abs_error(self) -> float:
        return max((each.largest for each in self.comparisons), default=0.0)

    @property
    def worst(self) -> Comparison | None:
        """The comparison that comes nearest to its tolerance, or exceeds it most."""
        return max(
            self.comparisons, key=lambda each: (each.error - each.tolerance > 0, each.error / max(each.tolerance, 1e-12)), default=None
        )


def find_cases(root: Path) -> list[tuple[str, Path]]:
    """Name and folder of every case in a folder or below it."""
    folders = sorted(path.parent for path in root.rglob("case.json"))
    return [(folder.name if folder == root else folder.relative_to(root).as_posix(), folder) for folder in folders]


def replay(folder: Path, name: str) -> Report:
    """Replay one case. Whatever goes wrong with it is told in the report, so that the others go on."""
    try:
        case = read_case(folder, name)
    except (OSError, ValueError, SafetensorError) as error:
        return Report(name, None, [], {}, f"cannot be read: {error}")
    check = Check(case)
    failure: str | None = None
    try:
        adapter = next((adapter for adapter in ADAPTERS if adapter.fits(case)), None)
        if adapter is None:
            raise CaseError(f"no adapter for {case.official or case.description.get('what') or 'a case without official_class'}.")
        adapter.replay(case, check)
    except (CaseError, OptionError) as error:
        failure = str(error)
    except KeyError as error:
        failure = f"case.json, or the tensors beside it, lack {error}, which this kind of case needs."
    except Exception as error:  # a case from elsewhere may ask for anything; what it was is in the report, in one line
        failure = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    compared = {comparison.name for comparison in check.comparisons}
    reason = "the case was not run to its end." if failure else "no adapter computes a tensor of this name."
    left = {tensor: reason for tensor in case.outputs if tensor not in compared and tensor not in check.skipped}
    return Report(name, case.description.get("tolerance"), check.comparisons, {**check.skipped, **left}, failure)
