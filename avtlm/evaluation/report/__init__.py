"""`avtlm report DIR ...`: what runs have come to, as one HTML file without anything from elsewhere.

It shows what a folder holds, of whatever system and task: curves of the log, error rates in noise and from corrupted pictures, errors,
samples with sound, lips and alignments, settings and origin. What is not there is left out with a sentence, what is damaged is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avtlm.evaluation.report import configuration, errors, results, samples, training
from avtlm.evaluation.report.folder import Run, read_runs
from avtlm.evaluation.report.page import Markup, document, element, section, table
from avtlm.files import write_text

SAMPLES = 6


@dataclass(frozen=True)
class Report:
    """A page that was written, and sentences about what could not be read for it."""

    path: Path
    runs: tuple[str, ...]
    size: int
    problems: tuple[str, ...]


def report(
    folders: Sequence[str | Path],
    output: str | Path,
    manifest: str | Path | None = None,
    split: str | None = "test",
    count: int = SAMPLES,
    seed: int = 0,
    modality: str | None = None,
    title: str | None = None,
) -> Report:
    """Write the page of one run, or of several side by side.

    Args:
        folders: of trainings, evaluations or models; of a folder of several runs, such as a pipeline's, all of them.
        output: the HTML file; written atomically.
        manifest: clips for samples, which the runs' models hear and see; without it there are none.
        split: of the manifest; None takes all rows.
        count: samples; each adds at most 0.9 MB of sound (20 s) and some 100 kB of pictures.
        seed: of the choice of samples.
        modality: what models are given of the samples: ``a``, ``v`` or ``av``; by default all that they take in.
        title: of the page.

    Raises:
        ValueError: a folder is missing or holds nothing that is known; wrong arguments.
        ManifestError: the manifest cannot be read.
        MissingExtra: jiwer, which aligns words, is needed and not installed.
    """
    if count < 0:
        raise ValueError(f"samples: {count}; give 0 or more.")
    if modality not in (None, "a", "v", "av"):
        raise ValueError(f"modality: {modality!r} is unknown; choose a, v or av.")
    runs = read_runs(folders)
    problems = [problem for run in runs for problem in run.problems]
    parts = {
        (training.NAME, training.TITLE): training.training(runs),
        (results.NAME, results.TITLE): results.results(runs),
        (errors.NAME, errors.TITLE): errors.errors(runs),
        (samples.NAME, samples.TITLE): samples.samples(runs, manifest, split, count, seed, modality, problems),
        (configuration.NAME, configuration.TITLE): configuration.configuration(runs),
    }
    heading = title or f"Report of {', '.join(run.name for run in runs)}"
    contents = [("overview", "Overview"), *parts]
    text = document(heading, _overview(runs, problems), *parts.values(), contents=contents)
    write_text(output, text)
    return Report(Path(output), tuple(run.name for run in runs), len(text.encode()), tuple(problems))


def _overview(runs: Sequence[Run], problems: Sequence[str]) -> Markup:
    rows = []
    for run in runs:
        system = run.facts.get("system") or run.settings.get("system", "")
        task = run.facts.get("task") or run.settings.get("task", "")
        step, steps = training.last_step(run), run.settings.get("steps")
        done = "" if step is None else f"{step:,}" + (f" of {steps:,}" if isinstance(steps, int) else "")
        held = [str(run.model.relative_to(run.folder)) if run.model != run.folder else "this folder"] if run.model is not None else []
        rows.append((run.name, str(run.folder), system, task, done, run.facts.get("parameters", ""), " ".join(held)))
    found = [table(("run", "folder", "system", "task", "steps", "parameters", "model"), rows, "Runs of this report")]
    if problems:
        listed = element("ul", *(element("li", problem) for problem in dict.fromkeys(problems)))
        found.append(element("div", element("h3", "What could not be read"), listed, class_="fault"))
    return section("overview", "Overview", *found)
