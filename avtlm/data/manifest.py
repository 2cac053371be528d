"""Manifests: one row per utterance, as JSON lines or in the layout of fairseq and AV-HuBERT (tsv with wrd and km beside it).

A ``manifest.jsonl`` holds one object a line with the fields of `Utterance`; its first line may be ``{"root": FOLDER}``, otherwise paths are
relative to the folder of the manifest. Errors name the file and the line.
"""

import dataclasses
import difflib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, overload

from avtlm.files import write_text

if TYPE_CHECKING:
    from avtlm.data.shards import ShardIndex

SPLITS = ("train", "valid", "test")
VIDEO_FPS = 25.0
_TEXT_FIELDS = ("video", "audio", "transcript", "speaker", "split", "phones")
_COUNT_FIELDS = ("video_frames", "audio_samples", "sample_rate")


class ManifestError(ValueError):
    """A manifest cannot be read; the message names the file, the line and the reason."""


@dataclass(frozen=True)
class Utterance:
    """One row: where the media are, how long they are, what is said and by whom.

    Attributes:
        id: stable and unique in the manifest.
        video: lip crops or source video, relative to the root of the manifest or absolute; None if there is no picture.
        audio: wav or flac (16 kHz mono once preprocessed); None if there is no sound.
        video_frames: number of frames at 25 fps.
        audio_samples: number of samples at ``sample_rate`` (Hz).
        split: ``train``, ``valid`` or ``test``.
        phones: ``symbol:start:end ...`` in seconds, or plain symbols.
        extra: whatever else a corpus knows, as JSON values; ``extra["units"]`` holds the labels of a km file.
    """

    id: str
    video: str | None = None
    audio: str | None = None
    video_frames: int = 0
    audio_samples: int = 0
    sample_rate: int = 16000
    transcript: str | None = None
    speaker: str | None = None
    split: str | None = None
    phones: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Seconds: of the audio if there is any, else of the video."""
        return self.audio_samples / self.sample_rate if self.audio_samples else self.video_frames / VIDEO_FPS


@dataclass(frozen=True)
class Manifest:
    """Utterances and the folder that their paths are relative to; ``source`` and ``lines`` say where the rows were read.

    With ``shards`` the media lie in tar files and are read by avtlm.data.shards.
    """

    root: Path
    utterances: tuple[Utterance, ...]
    source: Path | None = field(default=None, compare=False)
    lines: tuple[int, ...] = field(default=(), compare=False)
    shards: "ShardIndex | None" = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def __getitem__(self, index: int) -> Utterance:
        return self.utterances[index]

    @overload
    def path(self, relative: str) -> Path: ...
    @overload
    def path(self, relative: None) -> None: ...
    def path(self, relative: str | None) -> Path | None:
        """Where a file of an utterance lies; None stays None.

        Raises:
            ManifestError: it lies in a shard.
        """
        if relative is not None and self.shards is not None:
            raise ManifestError(f"{self.source}: {relative} lies in a tar file, and this needs plain files; unpack the shards.")
        return None if relative is None else self.root / relative

    @property
    def place(self) -> str:
        """What read_manifest takes to read the whole of it again."""
        return self.shards.address if self.shards is not None else str(self.source or self.root)

    def filter(self, keep: Callable[[Utterance], bool]) -> "Manifest":
        """The utterances for which ``keep`` is true, in order."""
        chosen = [index for index, utterance in enumerate(self.utterances) if keep(utterance)]
        lines = tuple(self.lines[index] for index in chosen) if self.lines else ()
        return dataclasses.replace(self, utterances=tuple(self.utterances[index] for index in chosen), lines=lines)

    def split(self, name: str) -> "Manifest":
        """The utterances of one split: ``train``, ``valid`` or ``test``."""
        return self.filter(lambda utterance: utterance.split == name)


@dataclass(frozen=True)
class Problem:
    """Something wrong with one row of a manifest."""

    source: Path | None
    line: int | None
    id: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source or 'manifest'}" + (f", line {self.line}" if self.line else "")
        return f"{where}: utterance '{self.id}' {self.message}."


def read_manifest(path: str | Path) -> Manifest:
    """Read a ``.jsonl`` manifest, a ``.tsv`` of AV-HuBERT (with the ``.wrd`` and ``.km`` beside it), a folder's ``manifest.jsonl``, the
    index of shards (``shards.jsonl``, its folder, or a URL), or a ``.txt`` with a sentence in every line, which has transcripts alone.

    Raises:
        ManifestError: missing or unreadable file, malformed line, unknown field, wrong type, repeated id, or no rows at all.
    """
    from avtlm.data.shards import names_shards, read_shards  # which builds on this module

    if names_shards(path):
        return read_shards(path)
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.jsonl"
    if path.suffix == ".tsv":
        return read_tsv(path)
    if path.suffix == ".txt":
        said = [(number, " ".join(line.split())) for number, line in enumerate(_lines(path), start=1) if line.strip()]
        rows = [Utterance(f"{path.stem}-{number}", transcript=line) for number, line in said]
        return _manifest(path.parent, rows, path, [number for number, _ in said])
    root, numbers = path.parent, []
    utterances: list[Utterance] = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            _fail(path, number, "is not a JSON object")
        if not isinstance(row, dict):
            _fail(path, number, "is not a JSON object")
        if not utterances and "id" not in row and "root" in row:
            if not isinstance(row["root"], str):
                _fail(path, number, f"gives the root as {row['root']!r:.60}; expected a folder name")
            root = path.parent / row["root"]
            continue
        utterances.append(parse_utterance(row, path, number))
        numbers.append(number)
    return _manifest(root, utterances, path, numbers)


def write_manifest(path: str | Path, manifest: Manifest) -> None:
    """Write JSON lines atomically; fields at their default are left out.

    The root is left out if it is the folder of ``path``, relative if one of the two lies inside the other, and absolute otherwise.
    """
    path = Path(path)
    here, root = path.parent.resolve(), manifest.root.resolve()
    rows: list[dict[str, Any]] = []
    if root != here:
        nested = root.is_relative_to(here) or here.is_relative_to(root)
        rows.append({"root": os.path.relpath(root, here) if nested else str(root)})
    for utterance in manifest:
        row = dataclasses.asdict(utterance)
        defaults = Utterance(id=utterance.id)
        rows.append({key: value for key, value in row.items() if key == "id" or value != getattr(defaults, key)})
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_tsv(path: str | Path) -> Manifest:
    """Read the layout of fairseq and AV-HuBERT.

    The first line is the root; then ``id, video, audio, frames, samples`` separated by tabs, or the columns ``audio, samples`` of HuBERT.
    A ``.wrd`` file of the same name gives the transcripts and a ``.km`` file the units (``extra["units"]``), one line per row. The split is
    the file's name if that is train, valid or test. The word ``None`` stands for a missing file.

    Raises:
        ManifestError: missing file, wrong number of columns, a count that is no number, or label files of another length.
    """
    path = Path(path)
    head, *body = _lines(path) or [""]
    split = path.stem if path.stem in SPLITS else None
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(body, start=2):
        columns = line.split("\t")
        if len(columns) not in (2, 5):
            _fail(path, number, f"has {len(columns)} columns; expected 5 (id, video, audio, frames, samples) or 2 (audio, samples)")
        counts = columns[-1:] if len(columns) == 2 else columns[-2:]
        if not all(count.strip().isdecimal() and len(count) < 20 for count in counts):
            _fail(path, number, f"has {' and '.join(map(repr, counts)):.60} where the lengths should stand")
        if len(columns) == 2:
            row: dict[str, Any] = {"id": str(Path(columns[0]).with_suffix("")), "audio": columns[0], "audio_samples": int(counts[0])}
        else:
            row = {
                "id": columns[0],
                "video": columns[1],
                "audio": columns[2],
                "video_frames": int(counts[0]),
                "audio_samples": int(counts[1]),
            }
        rows.append({key: value for key, value in row.items() if value not in ("", "None")} | {"split": split})
    for suffix, key in ((".wrd", "transcript"), (".km", "units")):
        labels = path.with_suffix(suffix)
        if not labels.exists():
            continue
        lines = _lines(labels)
        if len(lines) != len(rows):
            raise ManifestError(f"{labels} has {len(lines)} lines but {path} has {len(rows)} utterances; they must agree line by line.")
        for row, line in zip(rows, lines):
            row.update({"transcript": line} if key == "transcript" else {"extra": {key: line}})
    utterances = [parse_utterance(row, path, number) for number, row in enumerate(rows, start=2)]
    return _manifest(path.parent / head.strip(), utterances, path, list(range(2, len(rows) + 2)))


def write_tsv(path: str | Path, manifest: Manifest) -> None:
    """Write ``path`` (.tsv) in AV-HuBERT's layout, with ``.wrd`` if every row has a transcript and ``.km`` if every row has units."""
    path = Path(path)
    rows = [(u.id, u.video or "None", u.audio or "None", str(u.video_frames), str(u.audio_samples)) for u in manifest]
    write_text(path, "".join("\t".join(row) + "\n" for row in [(str(manifest.root.resolve()),), *rows]))
    transcripts = [utterance.transcript for utterance in manifest]
    units = [utterance.extra.get("units") for utterance in manifest]
    for suffix, labels in ((".wrd", transcripts), (".km", units)):
        if labels and all(label is not None for label in labels):
            write_text(path.with_suffix(suffix), "".join(f"{label}\n" for label in labels))


def validate(manifest: Manifest, read_files: bool = False) -> list[Problem]:
    """Everything that looks wrong, row by row; an empty list means none.

    Checks lengths, splits, that audio and video last equally long (to 0.2 s) and that the files exist; with ``read_files`` also decodes
    every file and compares its true length with the manifest. What lies in shards is checked by ``python -m preprocess.shards --check``.
    """
    problems: list[Problem] = []
    for index, utterance in enumerate(manifest):
        messages = list(_row_problems(utterance))
        for name in () if manifest.shards is not None else (utterance.video, utterance.audio):
            path = manifest.path(name)
            if path is not None and not _is_file(path):
                messages.append(f"points to {path}, which does not exist")
        if read_files and not messages and manifest.shards is None:
            messages.extend(_file_problems(manifest, utterance))
        line = manifest.lines[index] if manifest.lines else None
        problems.extend(Problem(manifest.source, line, utterance.id, message) for message in messages)
    return problems


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _row_problems(utterance: Utterance) -> Iterator[str]:
    if utterance.video is None and utterance.audio is None and not (utterance.transcript or utterance.phones):
        yield "has neither video nor audio nor text"
    if utterance.video is not None and utterance.video_frames <= 0:
        yield f"has a video but video_frames is {utterance.video_frames}"
    if utterance.audio is not None and utterance.audio_samples <= 0:
        yield f"has audio but audio_samples is {utterance.audio_samples}"
    if utterance.sample_rate <= 0:
        yield f"has the sample rate {utterance.sample_rate}"
    elif utterance.video_frames > 0 and utterance.audio_samples > 0:
        seconds = utterance.video_frames / VIDEO_FPS, utterance.audio_samples / utterance.sample_rate
        if abs(seconds[0] - seconds[1]) > 0.2:
            yield f"has {seconds[0]:.2f} s of video but {seconds[1]:.2f} s of audio"
    if utterance.split not in (None, *SPLITS):
        yield f"is in the split '{utterance.split}'; expected train, valid or test"
    if utterance.transcript is not None and not utterance.transcript.strip():
        yield "has an empty transcript"


def _file_problems(manifest: Manifest, utterance: Utterance) -> Iterator[str]:
    from avtlm.data.media import MediaError, read_clip, read_lip_crops  # decoding is needed for this check only

    try:
        if utterance.audio is not None:
            audio = read_clip(manifest.path(utterance.audio), video=False, sample_rate=utterance.sample_rate).audio
            samples = 0 if audio is None else len(audio)
            if samples != utterance.audio_samples:
                yield f"says {utterance.audio_samples} audio samples but {utterance.audio} has {samples}"
        if utterance.video is not None:
            path = manifest.path(utterance.video)
            frames = read_lip_crops(path) if path.suffix == ".npy" else read_clip(path, audio=False).frames
            count = 0 if frames is None else len(frames)
            if count != utterance.video_frames:
                yield f"says {utterance.video_frames} video frames but {utterance.video} has {count}"
    except MediaError as error:
        yield f"cannot be decoded: {error}"


def parse_utterance(row: dict[str, Any], path: str | Path, number: int) -> Utterance:
    """The utterance of one line.

    Raises:
        ManifestError: an unknown field, a wrong type, or no id.
    """
    names = [item.name for item in dataclasses.fields(Utterance)]
    for key, value in row.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            _fail(
                path,
                number,
                f"has the unknown field {key!r:.60}{f' (did you mean {near[0]!r}?)' if near else ''}; put further fields under 'extra'",
            )
        if key in _TEXT_FIELDS:
            right, expected = value is None or isinstance(value, str), "text"
        elif key in _COUNT_FIELDS:
            right, expected = isinstance(value, int) and not isinstance(value, bool) and value >= 0, "a whole number from 0"
        else:
            right, expected = (isinstance(value, dict), "an object") if key == "extra" else (isinstance(value, str) and value != "", "text")
        if not right:
            _fail(path, number, f"has {key} = {value!r:.60}; expected {expected}")
    if "id" not in row:
        _fail(path, number, "has no 'id'")
    return Utterance(**row)


def _manifest(root: Path, utterances: list[Utterance], path: Path, numbers: list[int]) -> Manifest:
    if not utterances:
        raise ManifestError(f"{path} lists no utterances.")
    seen: dict[str, int] = {}
    for utterance, number in zip(utterances, numbers):
        if utterance.id in seen:
            _fail(path, number, f"repeats the id {utterance.id!r:.60} of line {seen[utterance.id]}")
        seen[utterance.id] = number
    return Manifest(root, tuple(utterances), path, tuple(numbers))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n") if path.stat().st_size else []
    except FileNotFoundError:
        raise ManifestError(f"{path} does not exist; give a manifest.jsonl or a .tsv file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8 text'}).") from None


def _fail(path: str | Path, number: int, reason: str) -> NoReturn:
    raise ManifestError(f"{path}, line {number}, {reason}.")
