"""What only shows when all clips of a corpus are looked at together: the same clip twice, and what leaks from one split into another."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

import numpy as np

from avtlm.data.manifest import SPLITS, Utterance
from avtlm.text.normalize import lower
from preprocess.check_clip import unpacked
from preprocess.check_sound import near_equal
from preprocess.check_sync import Offset, offset, pooled

CLEAR = 0.7  # correlation from which on the offset of a single clip is believed: sound of other clips reaches it in 5 % of GRID
CLEAR_TOGETHER, ENOUGH = 0.2, 10  # and that of a corpus, if it has so many clips
LATE = 0.2  # seconds from the offset of the corpus from which on a clip is named
NAMED = 5  # ids in a sentence


@dataclass(frozen=True)
class Finding:
    """Something about some clips, in one sentence. A fault makes them wrong for training; a remark may be meant so."""

    kind: str
    fault: bool
    ids: tuple[str, ...]
    text: str


def duplicates(
    records: Mapping[str, dict[str, Any]], paths: Mapping[str, tuple[str | None, str | None]], rows: Sequence[Utterance]
) -> list[Finding]:
    """Rows that name one file, and files of equal content. Rows that mean parts of one file (``extra["span"]``) are no duplicates."""
    split = {row.id: row.split for row in rows}
    parts = {row.id for row in rows if "span" in row.extra}
    findings = []
    for place, what in enumerate(("video", "audio")):
        by_path: dict[str, list[str]] = defaultdict(list)
        by_content: dict[str, dict[str, str]] = defaultdict(dict)
        for name, record in records.items():
            path = paths[name][place]
            if path is not None:
                if name not in parts:
                    by_path[path].append(name)
                if checksum := record.get(f"{what}_sha256"):
                    by_content[checksum].setdefault(path, name)
        groups = [tuple(names) for names in by_path.values() if len(names) > 1]
        findings += [
            Finding("duplicate", True, names, f"{len(names)} rows name one {what} file{_across(names, split)}") for names in groups
        ]
        equal = [tuple(names.values()) for names in by_content.values() if len(names) > 1]
        findings += [Finding("duplicate", True, names, f"{len(names)} {what} files are equal{_across(names, split)}") for names in equal]
    return findings


def near_duplicates(
    records: Mapping[str, dict[str, Any]], paths: Mapping[str, tuple[str | None, str | None]], rows: Sequence[Utterance]
) -> list[Finding]:
    """Clips whose files differ and whose sound is the same for a while."""
    split = {row.id: row.split for row in rows}
    names = [name for name, record in records.items() if record.get("print")]
    findings = []
    for pair in near_equal([unpacked(records[name]) for name in names]):
        both = names[pair.first], names[pair.second]
        heard = [paths[name][1] or paths[name][0] for name in both]
        sums = [records[name].get("audio_sha256") or records[name].get("video_sha256") for name in both]
        if heard[0] == heard[1] or (sums[0] is not None and sums[0] == sums[1]):
            continue  # named above, or parts of one file
        late = f", {abs(pair.lag):.2f} s {'later' if pair.lag > 0 else 'earlier'} in the second" if pair.lag else ""
        text = f"{pair.seconds:.1f} s of sound are nearly equal ({pair.differing:.0%} of the bits differ{late}){_across(both, split)}"
        findings.append(Finding("near duplicate", False, both, text))
    return findings


def leaks(rows: Sequence[Utterance]) -> list[Finding]:
    """Speakers and transcripts that stand in more than one split. Many corpora are meant so; published comparisons ought to say it."""
    findings = []
    for kind, key in (("speaker", lambda row: row.speaker), ("transcript", lambda row: lower(row.transcript) if row.transcript else None)):
        held: dict[str, dict[str, list[str]]] = {split: defaultdict(list) for split in SPLITS}
        for row in rows:
            value = key(row)
            if value and row.split in held:
                held[row.split][value].append(row.id)
        for one, other in combinations(SPLITS, 2):
            shared = sorted(held[one].keys() & held[other].keys(), key=lambda value: (-len(held[other][value]), value))
            if shared:
                ids = tuple(name for value in shared for name in held[other][value])
                share = len(ids) / sum(map(len, held[other].values()))
                text = f"{len(shared):,} {kind}s of {other} are in {one} too ({_some(shared)}): {len(ids):,} clips, {share:.0%} of {other}"
                findings.append(Finding(f"{kind} leak", False, ids, text))
    return findings


def offsets(records: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Any], list[Finding]]:
    """How late the sound of the corpus is as a whole, and clips that clearly differ from that."""
    curves = {name: np.asarray(record["curve"]) for name, record in records.items() if "curve" in record}
    whole = pooled(list(curves.values()))
    if whole is None:
        return {"clips": 0}, []
    single = {name: offset(curve) for name, curve in curves.items()}
    clear = {name: found for name, found in single.items() if found.agreement >= CLEAR}
    summary = {
        "clips": len(curves),
        "pooled_seconds": whole.seconds,
        "pooled_agreement": whole.agreement,
        "clear_clips": len(clear),
        "median_seconds": round(median(found.seconds for found in clear.values()), 3) if clear else None,
        "histogram": histogram(list(clear.values())),
    }
    findings = []
    believed = whole.agreement >= CLEAR_TOGETHER and len(curves) >= ENOUGH
    if believed and abs(whole.seconds) > LATE:
        findings.append(
            Finding("offset", False, (), f"the sound of the corpus is {_late(whole.seconds)} (all {len(curves):,} clips together)")
        )
    middle = whole.seconds if believed else 0.0
    for name, found in sorted(clear.items()):
        if abs(found.seconds - middle) > LATE:
            text = f"its sound seems {_late(found.seconds)} (agreement {found.agreement:.2f}; the corpus: {middle:+.2f} s)"
            findings.append(Finding("offset", False, (name,), text))
    return summary, findings


def histogram(found: Sequence[Offset]) -> dict[str, int]:
    """Clips by offset, in steps of 40 ms."""
    counts = Counter(round(each.seconds / 0.04) for each in found)
    return {f"{step * 0.04:+.2f}": counts[step] for step in sorted(counts)}


def _late(seconds: float) -> str:
    return f"{abs(seconds):.2f} s {'late' if seconds > 0 else 'early'}"


def _across(names: Sequence[str], split: Mapping[str, str | None]) -> str:
    found = sorted({split[name] or "no split" for name in names})
    return f", across {' and '.join(found)}" if len(found) > 1 else ""


def _some(values: Sequence[str]) -> str:
    shown = ", ".join(repr(value)[:60] for value in values[:3])
    return f"{shown} and {len(values) - 3:,} more" if len(values) > 3 else shown
