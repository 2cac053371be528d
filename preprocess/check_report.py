"""The findings of a check as a table for the terminal, as JSON, and as one HTML page without anything from elsewhere."""

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avtlm.files import write_text
from preprocess.check_corpus import Finding

SHOWN = 200  # findings of a kind on the page; report.json has them all
IDS = 10  # ids of a finding on the page
STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #888; --bar: #3a7ca5; --fault: #b3261e; --fine: #2e7d32; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; text-align: left; }
td.number, th.number { text-align: right; } td.ids { word-break: break-all; color: var(--faint); } .fault { color: var(--fault); }
.fine { color: var(--fine); } svg text { font-size: 11px; fill: currentColor; } rect { fill: var(--bar); }
"""


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
    title = f"Check of {html.escape(str(summary['manifest']))}"
    state = (
        '<span class="fine">no faults</span>'
        if not summary["faulty"]
        else f'<span class="fault">{summary["faulty"]:,} clips with faults</span>'
    )
    parts = [
        f"<h1>{title}</h1><p>{summary['clips']:,} clips, {summary['hours']:.2f} hours, {state}.</p>",
        _table(("split", "clips", "hours", "speakers"), [(name, *values.values()) for name, values in summary["splits"].items()]),
        _table(
            ("", "kind", "findings", "clips"),
            [("fault" if fault else "remark", kind, count, clips) for kind, fault, count, clips in kinds(findings)],
        )
        if findings
        else "",
        _offsets(summary["offset"]),
    ]
    for kind, fault, count, _ in kinds(findings):
        chosen = [finding for finding in findings if (finding.kind, finding.fault) == (kind, fault)][:SHOWN]
        cut = f" (the first {SHOWN} of {count:,})" if count > SHOWN else ""
        rows = "".join(
            f'<tr><td class="ids">{html.escape(", ".join(finding.ids[:IDS]))}{" …" if len(finding.ids) > IDS else ""}</td>'
            f"<td>{html.escape(finding.text)}</td></tr>"
            for finding in chosen
        )
        parts.append(f'<h2 class="{"fault" if fault else ""}">{html.escape(kind)}{cut}</h2><table>{rows}</table>')
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>{"".join(parts)}</body></html>\n'
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any, tag: str = "td") -> str:
        number = isinstance(value, int | float)
        text = f"{value:,}" if number else html.escape(str(value))
        return f"<{tag}{' class=number' if number else ''}>{text}</{tag}>"

    head = "".join(cell(name, "th") for name in names)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _offsets(sync: Mapping[str, Any]) -> str:
    """How late sound is, as bars."""
    if not sync["clips"]:
        return ""
    counts = sync["histogram"]
    highest, width = max(counts.values(), default=1), 28
    bars = "".join(
        f'<rect x="{place * width}" y="{100 - 90 * count / highest:.0f}" width="{width - 4}" height="{90 * count / highest:.0f}">'
        f'<title>{count:,} clips</title></rect><text x="{place * width}" y="115">{step}</text>'
        for place, (step, count) in enumerate(counts.items())
    )
    picture = f'<svg width="{max(1, len(counts)) * width + 20}" height="120" role="img" aria-label="clips by offset">{bars}</svg>'
    together = f"{sync['pooled_seconds']:+.2f} s (positive: the sound is late), agreement {sync['pooled_agreement']:.2f} of at most 1"
    return (
        f"<h2>Sound against lips</h2><p>All {sync['clips']:,} clips with lip crops together: {together}. "
        f"{sync['clear_clips']:,} clips agree clearly by themselves (s):</p>{picture}"
    )
