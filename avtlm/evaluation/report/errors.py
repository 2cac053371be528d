"""The part of a report on single errors: kinds of them by condition, what is taken for what, and the utterances with most of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from avtlm.evaluation.cells import KeptCell
from avtlm.evaluation.corruptions import KINDS, strength_label
from avtlm.evaluation.plots import NAMES
from avtlm.evaluation.report.differences import marked_words
from avtlm.evaluation.report.folder import Run
from avtlm.evaluation.report.page import Markup, element, folded, joined, paragraph, section, table
from avtlm.evaluation.wer import align_words, corpus_wer, word_errors
from avtlm.text.normalize import normalize

NAME, TITLE = "errors", "Errors"
WORST = 10  # utterances
OFTEN = 12  # confusions
LONGEST = 1000  # characters of a text that are shown


def errors(runs: Sequence[Run]) -> Markup:
    """Tables of every run that kept what was recognised; of the others what its last validation has understood."""
    parts: list[Markup] = []
    for run in runs:
        heading = [element("h3", run.name)] if len(runs) > 1 else []
        cells = ordered(run.cells)
        if cells:
            parts += [*heading, _kinds(run, cells), legend(), *(_worst(cell) for cell in cells if is_plain(cell))]
        elif run.samples:
            parts += [*heading, _samples(run)]
    without = [run.name for run in runs if not run.cells and not run.samples]
    if without:
        kept = element("code", "avtlm evaluate --cells FOLDER/cells")
        told = joined(["No recognised texts were kept: ", ", ".join(without), ". ", kept, " keeps them."])
        parts.append(paragraph(told, kind="faint"))
    return section(NAME, TITLE, *parts)


def ordered(cells: Sequence[KeptCell]) -> list[KeptCell]:
    """Cells by input, clean ones first."""
    inputs = list(NAMES)
    return sorted(cells, key=lambda cell: (not is_plain(cell), inputs.index(_modality(cell)), condition_name(cell.asked)))


def is_plain(cell: KeptCell) -> bool:
    """Whether neither sound nor picture was changed."""
    return cell.asked.get("snr") is None and cell.asked.get("visual") is None


def condition_name(asked: Mapping[str, Any]) -> str:
    """``clean``, ``babble, -5 dB``, ``blur 2 px``."""
    found = []
    if isinstance(asked.get("snr"), int | float):
        found.append(f"{asked.get('noise')}, {asked['snr']:g} dB")
    if asked.get("visual") in KINDS and isinstance(asked.get("strength"), int | float):
        found.append(f"{asked['visual']} {strength_label(asked['visual'], asked['strength'])}")
    return "; ".join(found) or "clean"


def pairs(cell: KeptCell) -> list[tuple[str, str, str]]:
    """(id, said, recognised) as they are compared: in lower case, and divided into characters where these were counted."""
    apart = bool(cell.asked.get("characters"))

    def units(text: str) -> str:
        return " ".join("".join(normalize(text).split())) if apart else normalize(text)

    return [(name, units(said), units(text)) for name, said, text in cell.utterances]


def worst_first(cell: KeptCell) -> list[tuple[int, int, str, str, str]]:
    """(errors, words, id, said, recognised) of all utterances, most errors first."""
    counted = [(*word_errors(said, text), name, said, text) for name, said, text in pairs(cell)]
    return sorted(counted, key=lambda row: (-row[0], row[1], row[2]))


def _modality(cell: KeptCell) -> str:
    found = cell.asked.get("modality")
    return found if found in NAMES else "av"


def _kinds(run: Run, cells: Sequence[KeptCell]) -> Markup:
    rows = []
    for cell in cells:
        rate = corpus_wer([(said, text) for _, said, text in pairs(cell)])
        low, high = rate.interval
        counts = (rate.errors, rate.substitutions, rate.deletions, rate.insertions, rate.words, rate.utterances)
        rows.append([NAMES[_modality(cell)], condition_name(cell.asked), f"{rate.percent:.1f} ({low:.1f}-{high:.1f})", *counts])
    head = ("input", "condition", "% (95 % interval)", "errors", "wrong", "missing", "extra", "words", "utterances")
    return table(head, rows, f"{run.name}: errors by kind")


def _worst(cell: KeptCell) -> Markup:
    """What is taken for what, and the utterances with most errors."""
    counts: Counter[tuple[str, str]] = Counter()
    for _, said, text in pairs(cell):
        counts.update((pair.reference, pair.hypothesis) for pair in align_words(said, text) if pair.kind != "equal")
    where = f"{NAMES[_modality(cell)]}, clean"
    often = [(said or "(nothing)", heard or "(nothing)", count) for (said, heard), count in counts.most_common(OFTEN)]
    rows = [
        (name, f"{wrong} of {words}", marked_words(said[:LONGEST], text[:LONGEST])) for wrong, words, name, said, text in worst_first(cell)
        if wrong
    ][:WORST]  # fmt: skip
    if not rows:
        return paragraph(f"{where}: no errors.")
    confused = table(("said", "recognised", "times"), often, f"{where}: the most frequent errors")
    utterances = table(("utterance", "errors", "recognised"), rows, f"{where}: utterances with most errors")
    return joined([utterances, folded(f"The most frequent errors: {where}", confused)])


def legend() -> Markup:
    """What the marks mean."""
    marks = [
        element("span", "≠ recognised ", element("small", "(said)"), class_="wrong"),
        element("span", "− said", class_="missing"),
        element("span", "+ recognised", class_="extra"),
    ]
    return paragraph(marks[0], " wrong word   ", marks[1], " missing word   ", marks[2], " extra word", kind="faint")


def _samples(run: Run) -> Markup:
    rows = []
    for each in run.samples:
        said, text = normalize(each["reference"])[:LONGEST], normalize(each["text"])[:LONGEST]
        rows.append((each["id"], marked_words(said, text)))
    return joined([legend(), table(("utterance", "recognised"), rows, f"{run.name}: utterances of the last validation")])
