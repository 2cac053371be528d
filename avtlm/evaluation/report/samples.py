"""The part of a report on single utterances: their sound and lips, what was recognised of them, and where the model heard and looked.

The utterances are those with most errors where texts were kept, and others that the seed draws. A model is run on them by its own search;
what CTC says of every frame and where the attention decoder looks are drawn as maps with a row for every symbol and time to the right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avtlm.evaluation.report.differences import marked_words
from avtlm.evaluation.report.errors import LONGEST, condition_name, is_plain, legend, ordered, pairs, worst_first
from avtlm.evaluation.report.folder import Run
from avtlm.evaluation.report.page import Markup, element, joined, paragraph, section, table
from avtlm.evaluation.report.pictures import heat_map, picture, sound

if TYPE_CHECKING:
    from avtlm.data.dataset import ClipDataset, Item
    from avtlm.transcriber import Transcriber

NAME, TITLE = "samples", "Samples"
SECONDS = 20  # of sound that is embedded
CROPS = 8  # lip crops of a clip
SYMBOLS = 60  # rows of a map


def samples(
    runs: Sequence[Run], manifest: str | Path | None, split: str | None, count: int, seed: int, modality: str | None, problems: list[str]
) -> Markup:
    """Up to ``count`` utterances of a manifest; ``problems`` gets a sentence for everything that cannot be read.

    Raises:
        ManifestError, ValueError: the manifest cannot be used.
    """
    if manifest is None or count == 0:
        why = "No manifest was given (--manifest), so there are no clips to hear and see." if count else "No samples were asked for."
        return section(NAME, TITLE, paragraph(why, kind="faint"))
    from avtlm.data.dataset import ClipDataset, Source

    dataset = ClipDataset(Source(str(manifest), "recognition", split=split, max_seconds=float("inf"), min_seconds=0.0, cache=False))
    chosen = _choose(runs, dataset, count, seed)
    models = _open_models(runs, problems)
    texts = [(run.name, cell, {name: (said, text) for name, said, text in pairs(cell)}) for run in runs for cell in ordered(run.cells)]
    shown = [legend()]
    for index in chosen:
        row = dataset.manifest[index]
        found = [
            (f"{name}: {cell.asked.get('modality')}, {condition_name(cell.asked)}", *by_id[row.id])
            for name, cell, by_id in texts
            if row.id in by_id and is_plain(cell)
        ]
        maps = [joined(_maps(name, model, dataset, index, modality, found, problems)) for name, model in models.items()]
        compared = [(who, marked_words(said[:LONGEST], text[:LONGEST])) for who, said, text in found]
        heading = element("h3", f"{row.id}", *([" ", element("small", f"({row.speaker})", class_="faint")] if row.speaker else []))
        said = paragraph(element("strong", "Said: "), (row.transcript or "(no transcript)")[:LONGEST])
        media = [_sound(dataset, index, problems), _lips(dataset, index, problems)]
        recognised = [table(("model, input", "recognised"), compared, f"{row.id}: recognised")] if compared else []
        shown.append(element("article", heading, said, *media, *recognised, *maps, class_="sample"))
    if not models:
        shown.append(paragraph("No model that writes text lies in these folders, so no alignments are drawn.", kind="faint"))
    return section(NAME, TITLE, *shown)


def _choose(runs: Sequence[Run], dataset: "ClipDataset", count: int, seed: int) -> list[int]:
    """Half of them those with most errors of the first run that kept texts, the rest as the seed draws."""
    from avtlm.data.seeds import seed_for

    places = {row.id: place for place, row in enumerate(dataset.manifest)}
    cells = [cell for run in runs for cell in ordered(run.cells) if is_plain(cell)]
    worst = [name for wrong, _, name, *_ in worst_first(cells[-1]) if wrong and name in places] if cells else []
    drawn = sorted(places, key=lambda name: seed_for(seed, "report", name))
    return [places[name] for name in dict.fromkeys([*worst[: count // 2], *drawn])][:count]


def _sound(dataset: "ClipDataset", index: int, problems: list[str]) -> Markup:
    from avtlm.data.media import MediaError
    from avtlm.frontends.filterbank import SAMPLE_RATE

    row = dataset.manifest[index]
    if row.audio is None:
        return paragraph("This clip has no sound.", kind="faint")
    try:
        wave = dataset.wave(index)
    except MediaError as error:
        problems.append(str(error))
        return paragraph(f"Its sound cannot be read: {error}", kind="fault")
    seconds = len(wave) / SAMPLE_RATE
    cut = f"; the first {SECONDS} s" if seconds > SECONDS else ""
    player = sound(wave[: SECONDS * SAMPLE_RATE], SAMPLE_RATE, f"Sound of {row.id}")
    return element("figure", player, element("figcaption", f"Sound, {seconds:.1f} s{cut}"))


def _lips(dataset: "ClipDataset", index: int, problems: list[str]) -> Markup:
    from avtlm.data.media import MediaError

    row = dataset.manifest[index]
    if row.video is None:
        return paragraph("This clip has no picture.", kind="faint")
    try:
        crops = dataset.crops(index)
    except MediaError as error:
        problems.append(str(error))
        return paragraph(f"Its lip crops cannot be read: {error}", kind="fault")
    strip = np.concatenate(list(crops[np.linspace(0, len(crops) - 1, min(CROPS, len(crops))).astype(int)]), axis=1)
    told = f"{len(crops)} lip crops, of which {min(CROPS, len(crops))} are shown from first to last"
    return element("figure", picture(strip, f"Lips of {row.id} from its beginning to its end"), element("figcaption", told))


# Alignments --------------------------------------------------------------------------------------------------------------------------


def _open_models(runs: Sequence[Run], problems: list[str]) -> dict[str, "Transcriber"]:
    """Those that write text, by the names of their runs."""
    models = {}
    for run in runs:
        if run.model is None or run.facts.get("task") not in ("recognition", "transcription"):
            continue
        from avtlm.transcribe import load_recognizer

        try:
            models[run.name] = load_recognizer(run.model)
        except ValueError as error:
            problems.append(f"{error} No alignments of {run.name} are drawn.")
    return models


def _maps(
    name: str,
    model: "Transcriber",
    dataset: "ClipDataset",
    index: int,
    modality: str | None,
    found: list[tuple[str, str, str]],
    problems: list[str],
) -> list[Markup]:
    """Maps of one model for one clip; what it writes is added to ``found``."""
    row = dataset.manifest[index]
    wanted = modality or ("av" if model.inputs.video_size is not None else "a")
    given = "".join(letter for letter, there in (("a", row.audio), ("v", row.video)) if letter in wanted and there is not None)
    if model.inputs.video_size is None:
        given = given.replace("v", "")
    if not given:
        return [paragraph(f"{name}: this clip has nothing that the model takes in.", kind="faint")]
    try:
        item = _item(model, dataset, index, given)
    except ValueError as error:  # damaged or too short
        problems.append(str(error))
        return []
    text, maps = alignments(model, item)
    found.append((f"{name}: {given}, here", " ".join((row.transcript or "").lower().split()), " ".join(text.lower().split())))
    seconds = len(item.video) / 25.0 if item.video is not None else model.inputs.seconds(item.audio)  # type: ignore[arg-type]
    titles = {"ctc": "what CTC says of every frame", "attention": "where the decoder looks, mean of all layers and heads"}
    charts = []
    for kind, (values, symbols) in maps.items():
        told = f"{name}, {given}: {titles[kind]}" + (f" (the first {SYMBOLS} symbols)" if len(symbols) > SYMBOLS else "")
        drawing = heat_map(values[:SYMBOLS], symbols[:SYMBOLS], seconds, f"{told}, for {row.id}")
        charts.append(element("figure", drawing, element("figcaption", told)))
    if not charts:
        why = "nothing was recognised, or this model has neither CTC nor an attention decoder to draw."
        charts.append(paragraph(f"{name}: {why}", kind="faint"))
    return charts


def _item(model: "Transcriber", dataset: "ClipDataset", index: int, given: str) -> "Item":
    from avtlm.data.dataset import Item

    row = dataset.manifest[index]
    video = model.inputs.video(dataset.crops(index)) if "v" in given else None
    audio = model.inputs.audio(dataset.wave(index), None if video is None else len(video)) if "a" in given else None
    return Item(row.id, audio=audio, video=video)


def alignments(model: "Transcriber", item: "Item") -> tuple[str, Mapping[str, tuple[np.ndarray, list[str]]]]:
    """What a model writes of one clip, and how its symbols belong to time.

    Returns:
        The text; under ``ctc`` the probability of each of its symbols in every frame (symbols, frames), every symbol once in the order in
        which they come, the blank below; under ``attention`` the weights of every token (tokens, frames). Either with the names of the
        rows, and only of heads that the model has. Empty if it writes nothing.
    """
    import torch

    from avtlm.data.dataset import collate

    device = next(model.parameters()).device
    batch = collate([item], "recognition").to(device)
    maps: dict[str, tuple[np.ndarray, list[str]]] = {}
    [nbest] = model.search(batch, replace(model.decoding, words=False))
    best = nbest[0]
    if not best.tokens:
        return best.text, maps
    heads, symbols = model.heads, model.vocabulary.symbols
    with torch.inference_mode():
        encoded, lengths = model.encode(batch)
        if heads.ctc is not None:
            log_probs = heads.ctc(encoded).float().log_softmax(-1)
            frames = int(heads.heard(lengths, encoded, log_probs)[0])
            rows = [*dict.fromkeys(best.tokens), heads.blank]
            maps["ctc"] = log_probs[0][:frames][:, rows].exp().cpu().numpy().T, [*_names(symbols, rows[:-1]), "(blank)"]
        if heads.decoder is not None:
            said = torch.tensor([[heads.start, *best.tokens]], device=device)
            weights, _ = heads.decoder.look(said[:, :-1], encoded, lengths)
            looks = weights[:, 0].float().mean((0, 1))[:, : int(lengths[0])]
            maps["attention"] = looks.cpu().numpy(), _names(symbols, best.tokens)
    return best.text, maps


def _names(symbols: Sequence[str], tokens: Sequence[int]) -> list[str]:
    return [symbols[token] if token < len(symbols) else str(token) for token in tokens]
