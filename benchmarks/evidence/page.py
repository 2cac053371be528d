"""The tables of docs/evidence.md, from the results of the runs alone.

Between ``<!-- evidence:NAME:begin -->`` and ``<!-- evidence:NAME:end -->`` everything is written here; all else on the page is prose.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from avtlm.files import write_text
from benchmarks.evidence.claims import CLAIMS, Claim, Measure, Trial
from benchmarks.evidence.outcome import Difference, Word, difference, overall, student_interval
from benchmarks.evidence.runs import ROOT, RUNS, duration, read_results, total_seconds

PAGE = ROOT / "docs" / "evidence.md"
RESULTS = ROOT / "benchmarks" / "results"
SUMMARY = "summary"
MARKED = re.compile(r"(<!-- evidence:(\w+):begin -->\n).*?(<!-- evidence:\2:end -->)", re.DOTALL)
Reports = Mapping[str, Mapping[str, Any] | None]


def write_page(page: Path = PAGE, results: Path = RESULTS, source: Path = PAGE) -> None:
    """Write all tables anew into a page.

    Args:
        page: where it is written.
        results: folder of the runs' results.
        source: the page whose prose is taken.

    Raises:
        ValueError: the page lacks a pair of marks or has one too many, or results are of another form.
    """
    write_text(page, filled(source.read_text(encoding="utf-8"), results))


def filled(text: str, results: Path = RESULTS) -> str:
    """A page with the tables that results give. Raises as `write_page` does."""
    reports = {name: read_results(results, name) for name in RUNS}
    blocks = {SUMMARY: summary(reports)} | {name: section(name, reports) for name in CLAIMS}
    found = [match[2] for match in MARKED.finditer(text)]
    if sorted(found) != sorted(blocks):
        wrong = sorted({name for name in {*found, *blocks} if found.count(name) != (name in blocks)})
        raise ValueError(f"evidence.md: wants one pair of marks for each of {', '.join(blocks)}; look at {', '.join(wrong)}.")
    return MARKED.sub(lambda match: f"{match[1]}{blocks[match[2]]}\n{match[3]}", text)


# What is said of a claim ---------------------------------------------------------------------------------------------------------------


def compared(trial: Trial, report: Mapping[str, Any]) -> Iterator[tuple[bool, str, Measure, Difference]]:
    """Every comparison of a table: whether it decides the claim, what is compared, by which measure, and the difference.

    Raises:
        ValueError: the report lacks a row that is compared.
    """
    for each in trial.comparisons:
        for measure in trial.measures:
            if each.measures and measure.path not in each.measures:
                continue
            sides = [trial.seeds(report, row, measure) for row in (each.better, each.other)]
            if sides[0] is None or sides[1] is None:
                lacking = each.better if sides[0] is None else each.other
                raise ValueError(f"{trial.run}: the results have no {measure.title} of {lacking!r}, which is compared.")
            what = f"{trial.rows[each.better]}, against {trial.rows[each.other]}"
            yield each.decides, what, measure, difference(sides[0], sides[1], measure.higher)


def judged(claim: Claim, reports: Reports) -> tuple[Word | None, list[Difference]]:
    """The word for a claim, None where a run that decides it is still to be made; and the differences of all comparisons."""
    deciding: list[Word] = []
    every: list[Difference] = []
    open_ = False
    for trial in claim.trials:
        report = reports[trial.run]
        if report is None:
            open_ = open_ or any(each.decides for each in trial.comparisons)
            continue
        for decides, _, _, found in compared(trial, report):
            every.append(found)
            if decides:
                deciding.append(found.word)
    return (None if open_ else overall(deciding)), every


def summary(reports: Reports) -> str:
    """A row for every system: the question, the word, and how often each word came."""
    lines = ["| system | asked here, at a small size | outcome | all comparisons |", "|---|---|---|---|"]
    for claim in CLAIMS.values():
        word, found = judged(claim, reports)
        outcome = "not yet run" if word is None else f"**{word}**"
        lines.append(f"| [{claim.title}](#{claim.title.lower()}) | {claim.question} | {outcome} | {counted(found)} |")
    return "\n".join(lines)


def section(name: str, reports: Reports) -> str:
    """All that the runs say of one system."""
    claim = CLAIMS[name]
    word, found = judged(claim, reports)
    parts = [] if word is None else [f"Outcome: **{word}** ({counted(found)}; in bold what decides)."]
    for run in claim.runs:
        report, trials = reports[run], [trial for trial in claim.trials if trial.run == run]
        if report is None:
            time = duration(60 * RUNS[run].minutes)
            parts.append("; ".join(trial.title for trial in trials) + ":")
            parts.append(f"**Not yet run.** `make evidence SYSTEM={name}` runs it (`{RUNS[run].shown}`, roughly {time} on two cores).")
        else:
            for trial in trials:
                parts += [f"{trial.title}:", levels(trial, report), differences(trial, report)]
            parts.append(measured(run, report))
    return "\n\n".join(part for part in parts if part)


# Tables --------------------------------------------------------------------------------------------------------------------------------


def levels(trial: Trial, report: Mapping[str, Any]) -> str:
    """A row for every variant: means over seeds, the lowest and the highest, and half the interval of the mean."""
    lines = [_row([trial.heading, *(measure.title for measure in trial.measures)]), "|---|" + "---:|" * len(trial.measures)]
    for row, title in trial.rows.items():
        each = [trial.found(report, row, measure) for measure in trial.measures]
        if any(found is not None for found in each):
            cells = ["" if found is None else cell(found, measure.digits) for found, measure in zip(each, trial.measures, strict=True)]
            lines.append(_row([title, *cells]))
    return "\n".join(lines)


def cell(found: Mapping[str, Any], digits: int) -> str:
    """Mean, range and half the interval of figures of some seeds: ``12.5 (10.0-15.0) ±4.1``; of one seed the figure alone, with its
    interval over utterances if it has one: ``12.5 [11.0-14.0]``."""
    seeds = found["seeds"]
    interval = student_interval(seeds)
    if interval is None:
        known = " [{:.{digits}f}-{:.{digits}f}]".format(*found["interval_95"], digits=digits) if "interval_95" in found else ""
        return f"{seeds[0]:.{digits}f}{known}"
    half = (interval[1] - interval[0]) / 2
    return f"{fmean(seeds):.{digits}f} ({min(seeds):.{digits}f}-{max(seeds):.{digits}f}) ±{half:.{digits}f}"


def differences(trial: Trial, report: Mapping[str, Any]) -> str:
    """A row for every comparison; nothing where there is none."""
    lines = []
    for decides, what, measure, found in compared(trial, report):
        better = f"{found.mean:+.{measure.digits}f}"
        if found.interval is not None:
            better += " ({0:+.{2}f} to {1:+.{2}f})".format(*found.interval, measure.digits)
        lines.append(_row([what, measure.title, better, f"**{found.word}**" if decides else found.word]))
    return "\n".join(["| compared | by | better by (95 %) | outcome |", "|---|---|---:|---|", *lines]) if lines else ""


def measured(name: str, report: Mapping[str, Any]) -> str:
    """How the figures came about: command, seeds, settings, time and machine, as far as the results say."""
    plan = dict(report.get("plan", {}))
    seeds = plan.pop("seeds", None)
    changes = plan.pop("changes", [])
    says = [f"`{report.get('command', RUNS[name].shown)}`"]
    if seeds is not None:
        says.append(f"{seeds} seed{'' if seeds == 1 else 's'}")
    seconds = total_seconds(report)
    says.append("time not recorded" if seconds is None else f"{duration(seconds)} of stages")
    machine = report.get("machine", {})
    known = [str(machine["processor"])] if "processor" in machine else []
    known += [f"{machine['cores']} cores"] if "cores" in machine else []
    known += [str(machine["gpu"])] if machine.get("gpu") else []
    known += [f"{title} {machine[key]}" for title, key in (("Python", "python"), ("PyTorch", "torch")) if key in machine]
    says += [", ".join(known)] if known else []
    settings = [f"{key} {_setting(value)}" for key, value in plan.items() if value is not None]
    settings += ["changed " + " ".join(f"`{change}`" for change in changes)] if changes else []
    return "Measured by " + "; ".join(says) + "." + (f" Settings: {', '.join(settings)}." if settings else "")


def _setting(value: Any) -> str:
    """One of a plan, maybe with parts of its own."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_setting(each)}" for key, each in value.items()) + ")"
    if isinstance(value, list | tuple):
        return " + ".join(map(str, value))
    return str(value)


def counted(differences: Sequence[Difference]) -> str:
    """``3 agree, 1 contrary, 2 no difference shown; mean on the side of the claim in 5 of 6``."""
    if not differences:
        return "-"
    words = Counter(each.word for each in differences)
    titles: dict[Word, str] = {
        "agrees": "agree",
        "contrary": "contrary",
        "no difference shown": "no difference shown",
        "not decided": "not decided",
    }
    said = ", ".join(f"{words[word]} {title}" for word, title in titles.items() if words[word])
    return f"{said}; mean on the side of the claim in {sum(each.mean > 0 for each in differences)} of {len(differences)}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"
