"""The findings of a check as a table for the terminal, as JSON, and as one HTML page without anything from elsewhere."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avtlm.evaluation.report.page import Markup, document, element, figure, joined, paragraph, table
from avtlm.files import write_text
from preprocess.check_corpus import Finding

SHOWN = 200  # findings of a kind on the page; report.json has them all
IDS = 10  # ids of a finding on the page
STYLE = "rect { fill: var(--c0); }"


def write_report(folder: Path, summary: Mapping[str, Any], findings: Sequence[Finding]) -> None:
    """``report.json`` and ``report.html``."""
    content = dict(summary) | {"findings": [asdict(finding) for finding in findings]}
    write_text(folder / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "report.html", page(summary, findings))


def kinds(findings: Sequence[Finding]) -> list[tuple[str, bool, int, int]]:
    """Kind, whether it is a fault, findings and clips; faults first, many before few."""
    counts = Counter((finding.kind, finding.fault) for finding in findings)
    clips = {key: len({name for finding in findings if (finding.kind, finding.fault) == key for name in finding.ids}) for key in counts}
    return [
        (kind, fault, count, clips[kind, fault])
        for (kind, fault), count in sorted(counts.items(), key=lambda item: (not item[0][1], -item[1], item[0]))
    ]


def lines(summary: Mapping[str, Any], findings: Sequence[Finding], shown: int = 5) -> list[str]:
    """The table for the terminal, with the first findings of every kind."""
    text = [f"{summary['clips']:,} clips, {summary['hours']:.2f} hours, {summary['faulty']:,} with faults"]
    for kind, fault, count, clips in kinds(findings):
        text.append(f"{'fault ' if fault else 'remark'} {kind:16} {count:7,} ({clips:,} clips)")
        chosen = [finding for finding in findings if (finding.kind, finding.fault) == (kind, fault)]
        text += [f"    {_who(finding)}{finding.text}" for finding in chosen[:shown]]
        if count > shown:
            text.append(f"    and {count - shown:,} more")
    sync = summary["offset"]
    if sync["clips"]:
        text.append(
            f"sound against lips: {sync['pooled_seconds']:+.2f} s over {sync['clips']:,} clips (agreement {sync['pooled_agreement']:.2f})"
        )
    return text


def _who(finding: Finding) -> str:
    if not finding.ids or "leak" in finding.kind:
        return ""
    more = f" and {len(finding.ids) - 2:,} more" if len(finding.ids) > 2 else ""
    return f"{', '.join(finding.ids[:2])}{more}: "


def page(summary: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """The whole page."""
    faulty = summary["faulty"]
    state = element("span", f"{faulty:,} clips with faults" if faulty else "no faults", class_="fault" if faulty else "fine")
    splits = [(name, *values.values()) for name, values in summary["splits"].items()]
    counted = [("fault" if fault else "remark", kind, count, clips) for kind, fault, count, clips in kinds(findings)]
    parts = [
        paragraph(f"{summary['clips']:,} clips, {summary['hours']:.2f} hours, ", state, "."),
        table(("split", "clips", "hours", "speakers"), splits, "Splits"),
        *([table(("", "kind", "findings", "clips"), counted, "Findings by kind")] if findings else []),
        _offsets(summary["offset"]),
    ]
    for kind, fault, count, _ in kinds(findings):
        chosen = [finding for finding in findings if (finding.kind, finding.fault) == (kind, fault)][:SHOWN]
        cut = f" (the first {SHOWN} of {count:,})" if count > SHOWN else ""
        rows = [(", ".join(finding.ids[:IDS]) + (" …" if len(finding.ids) > IDS else ""), finding.text) for finding in chosen]
        heading = element("h2", f"{kind}{cut}", class_="fault" if fault else None)
        parts.append(joined([heading, table(("clips", "finding"), rows, f"{kind}: clips and what was found")]))
    return document(f"Check of {summary['manifest']}", *parts, style=STYLE)


def _offsets(sync: Mapping[str, Any]) -> Markup:
    """How late sound is, as bars."""
    if not sync["clips"]:
        return Markup("")
    counts = sync["histogram"]
    highest, width = max(counts.values(), default=1), 28
    bars = []
    for place, (step, count) in enumerate(counts.items()):
        height = 90 * count / highest
        at = {"x": place * width, "y": f"{100 - height:.0f}", "width": width - 4, "height": f"{height:.0f}"}
        bars += [element("rect", element("title", f"{count:,} clips"), **at), element("text", step, x=place * width, y=115)]
    picture = element("svg", *bars, width=max(1, len(counts)) * width + 20, height=120, role="img", aria_label="clips by offset")
    together = f"{sync['pooled_seconds']:+.2f} s (positive: the sound is late), agreement {sync['pooled_agreement']:.2f} of at most 1"
    told = f"All {sync['clips']:,} clips with lip crops together: {together}. {sync['clear_clips']:,} clips agree clearly by themselves."
    return joined([element("h2", "Sound against lips"), paragraph(told), figure(picture, "Clips by how late their sound is, s")])
