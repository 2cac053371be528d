"""Model cards: the README.md of a model folder, for people who find the folder and for the hub.

A card opens with the front matter that the hub reads (licence, task, library), and says what the model is, how it is used, what it was
trained on and how it did in validation. Of file names it tells the last two parts, since cards travel further than disks.

Source: Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993), of whose sections a trainer can fill in a few.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from avtlm import __version__
from avtlm.checkpoint import CARD, CONFIG, TRANSCRIBES, USES, WEIGHTS

if TYPE_CHECKING:
    from avtlm.training.loop import Trainer

UNKNOWN = "unknown"  # the hub's own word for a licence that nobody has stated
# What the hub calls our tasks.
PIPELINES = {
    "recognition": "automatic-speech-recognition",
    "transcription": "automatic-speech-recognition",
    "generation": "text-to-speech",
    "speaker": "audio-classification",
    "language_model": "text-generation",
    "pretrain": "feature-extraction",
}
# What our tasks are in words.
TASKS = {
    "recognition": "which writes down speech",
    "transcription": "which writes down speech",
    "generation": "which writes speech",
    "speaker": "which names voices",
    "language_model": "which predicts text",
    "text_to_units": "which writes units for text",
    "vocoder": "which turns spectrograms into sound",
    "pretrain": "pre-trained, to be fine-tuned",
}
FIGURES = {  # of validation: title, and factor of what is a share
    "valid_wer": ("word error rate (%)", 100.0),
    "valid_bleu": ("BLEU", 1.0),
    "valid_perplexity": ("perplexity", 1.0),
    "valid_speaker_accuracy": ("speakers named rightly (%)", 100.0),
    "valid_unit_accuracy": ("units written rightly (%)", 100.0),
}
FRONT = re.compile(r"\A---\n(.*?\n)---\n\n?", re.DOTALL)
LICENCE = re.compile(r"^license: *(.+)$", re.MULTILINE)
NO_LICENCE = "Not stated. Whoever shares this model has to say under which licence, and whether its data allow it."


def model_card(
    name: str,
    settings: Mapping[str, Any],
    parameters: int,
    licence: str = UNKNOWN,
    training: Sequence[tuple[str, str]] = (),
    data: Sequence[str] = (),
    figures: Mapping[str, float] | None = None,
    step: int | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The text of a card, Markdown with the front matter of the hub.

    Args:
        name: title.
        settings: the model's configuration, with ``system`` and ``task``.
        parameters: how many.
        licence: an identifier of the hub, such as ``cc-by-4.0``.
        training: names and values of what a reader wants to know of the training.
        data: a sentence for each source.
        figures: results of validation by their names in the log.
        step: when they were measured.
        notes: further paragraphs.
    """
    system, task = settings["system"], settings.get("task")
    doing = TASKS.get(task or "")
    commands = [f"    {command}" for command in ("avtlm info FOLDER", *USES.get(task or "", TRANSCRIBES))]
    if task in ("recognition", "transcription"):
        python = 'avtlm.transcribe("clip.mp4", model="FOLDER").words'
    else:
        python = 'model = avtlm.load("FOLDER")'
    size = f"{parameters / 1e6:.1f} million" if parameters >= 1e5 else f"{parameters:,}"
    about = f"A {system} model of avtlm with {size} parameters" + (f", {doing}." if doing else ".")
    parts = [
        _front(licence, system, task),
        f"# {name}",
        about,
        *notes,
        "## Use",
        "\n".join(commands),
        f"```python\nimport avtlm\n\n{python}\n```",
        f"`{WEIGHTS}` holds the parameters and `{CONFIG}` the configuration that rebuilds the model; keep all files together.",
    ]
    if data:
        parts += ["## Data", "\n".join(f"- {line}" for line in data)]
    if training:
        parts += ["## Training", _table(("setting", "value"), training)]
    if figures:
        when = "" if step is None else f" after step {step}"
        parts += ["## Validation", f"Measured{when} on the validation data of the run.", _table(("figure", "value"), _measured(figures))]
    parts += ["## Licence", NO_LICENCE if licence == UNKNOWN else f"`{licence}`"]
    return "\n\n".join(parts) + "\n"


def trained_card(run: "Trainer", name: str) -> str:
    """The card of a model that a run saves: its system, task, data, settings, and what validation has found last."""
    settings, state = run.settings, run.state
    training = [
        ("system", settings.system),
        ("task", settings.task),
        ("steps", f"{state.step} of {settings.steps}"),
        ("started from", "scratch" if settings.initialise is None else f"`{_short(settings.initialise)}`"),
        ("learning rate", f"{settings.optim.lr:g}, {settings.optim.schedule}"),
        ("frames in a batch, at most", f"{settings.max_frames}"),
        ("batches of each source in a step", f"{settings.accumulate}"),
        ("precision", settings.precision),
        ("seed", f"{settings.seed}"),
        ("trained with", f"avtlm {__version__}"),
    ]
    data = [_source(name, stream.dataset) for name, stream in run.streams.items()]
    if run.validation is not None:
        data.append(_source("validation", run.validation.dataset))
    step, figures = _latest(run)
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    return model_card(name, run.start.card, parameters, UNKNOWN, training, data, figures, step)


def licence_of(text: str) -> str:
    """The licence that a card states in its front matter; ``unknown`` without any."""
    front = FRONT.match(text)
    found = LICENCE.search(front.group(1)) if front else None
    return found.group(1).strip() if found else UNKNOWN


def with_licence(text: str, licence: str, settings: Mapping[str, Any]) -> str:
    """A card that states a licence; one without front matter gets it."""
    front = FRONT.match(text)
    if front is None:
        return f"{_front(licence, settings['system'], settings.get('task'))}\n\n{text}"
    inside = front.group(1)
    changed = LICENCE.sub(lambda _: f"license: {licence}", inside) if LICENCE.search(inside) else f"license: {licence}\n{inside}"
    return f"---\n{changed}---\n\n{text[front.end() :].replace(NO_LICENCE, f'`{licence}`')}"


def read_card(folder: Path) -> str:
    """The card of a model folder; empty if there is none."""
    path = folder / CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _front(licence: str, system: str, task: str | None) -> str:
    tags = "".join(f"- {tag}\n" for tag in ("avtlm", system, *([task] if task else [])))
    pipeline = f"pipeline_tag: {PIPELINES[task]}\n" if task in PIPELINES else ""
    return f"---\nlicense: {licence}\nlibrary_name: avtlm\n{pipeline}tags:\n{tags}---"


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {first} | {second} |" for first, second in (head, ("---", "---"), *rows)]
    return "\n".join(lines)


def _measured(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """Those with a title first, the others by their names in the log; what is not finite says so."""
    rows = []
    for key in [*(key for key in FIGURES if key in figures), *(key for key in figures if key not in FIGURES)]:
        title, factor = FIGURES.get(key, (key.removeprefix("valid_").replace("_", " "), 1.0))
        value = figures[key] * factor
        rows.append((title, f"{value:.4g}" if math.isfinite(value) else "not finite"))
    return rows


def _source(name: str, dataset: Any) -> str:
    """One source of a run in words: how much of what."""
    source = dataset.source
    rows = list(dataset.manifest)
    hours = sum(row.duration for row in rows) / 3600
    amount = f"{len(rows)} utterances" + (f", {hours:.3g} hours" if hours else "")
    where = f"`{_short(source.manifest)}`" + (f", split `{source.split}`" if source.split else "")
    return f"{name} ({source.task}): {amount}, {where}"


def _short(path: str | Path) -> str:
    """The last two parts of a path."""
    return "/".join(PurePath(path).parts[-2:])


def _latest(run: "Trainer") -> tuple[int | None, dict[str, float]]:
    """What validation has found last, and when: in this process, or in the log of the run before it was stopped."""
    if run.validation is None:
        return None, {}
    if run.validation.latest is not None:
        return run.validation.latest
    journal = run.folder / "log.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
    for line in reversed(lines):
        if '"valid_' in line and line.endswith("}"):
            entry = json.loads(line)
            return entry["step"], {key: value for key, value in entry.items() if key.startswith("valid_") and isinstance(value, float)}
    return None, {}
