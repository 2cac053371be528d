"""Hidden states where a task finds them: computed once and kept in shards on disk, or computed whenever they are needed.

A cache is a folder for each encoder (by the hash of its weights and configuration), with shards of some hundred megabytes: ``NAME.npy``
(frames, layers, width) in half precision, which is read through memory maps, and ``NAME.json`` with the place of every clip. A clip is
known by the hash of its sound file and by start and end, so that tasks on the same sounds, learning rates and seeds share what is there.
Shards appear as a whole, so that a stopped run goes on and processes may share a cache.

What half precision costs is below a thousandth of each value. Kept states are those of whole clips: where training takes pieces of clips,
these are cut from the states. Without a cache the sound itself is cut, as in s3prl, so that an encoder sees the piece alone.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from avtlm.data.container import SAMPLE_RATE
from avtlm.data.sound import SOUND_FILES
from avtlm.evaluation.superb.data import Clip, CorpusError
from avtlm.evaluation.superb.features import Upstream, digest
from avtlm.files import atomic_path, write_text
from avtlm.training.progress import bar

SHARD_BYTES = 256 << 20
SHORT = 16  # letters of a hash in a name
LARGEST_HALF = 65504.0
TOGETHER = 8  # clips that are encoded at once, as far as they fit


@dataclass(frozen=True)
class Piece:
    """Frames of a clip, from one on; all of them without a count."""

    clip: Clip
    first: int = 0
    count: int | None = None


class States(Protocol):
    """All hidden states of clips."""

    upstream: Upstream

    def prepare(self, clips: Iterable[Clip]) -> None:
        """Called before clips are asked for."""
        ...

    def frames(self, clip: Clip) -> int:
        """About how many there are of a clip."""
        ...

    def of(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """(frames, layers, width) of each, of any float type."""
        ...


class LiveStates:
    """Computed whenever they are asked for."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._samples: dict[tuple[Path, float | None, float | None], int] = {}

    def prepare(self, clips: Iterable[Clip]) -> None:
        """Nothing is prepared."""

    def frames(self, clip: Clip) -> int:
        """As many as its length says."""
        place = (clip.audio, clip.start, clip.end)
        if place not in self._samples:
            self._samples[place] = _samples(clip)
        return self.upstream.expected(self._samples[place])

    def of(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """(frames, layers, width) of each, float32; of pieces whose sound alone is heard."""
        hop, waves = self.upstream.hop, []
        for piece in pieces:
            wave = piece.clip.wave()
            last = None if piece.count is None else round((piece.first + piece.count) * hop)
            waves.append(wave[round(piece.first * hop) : last])
        return _encoded(self.upstream, [piece.clip for piece in pieces], waves)


@dataclass
class _Shard:
    """Clips that are written together."""

    keys: list[str] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    bytes: int = 0


class CachedStates:
    """Computed once and kept.

    Args:
        folder: of the cache, for all encoders.
        shard_bytes: about how large a shard is.
    """

    def __init__(self, upstream: Upstream, folder: str | Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.upstream, self.folder, self.shard_bytes = upstream, Path(folder) / upstream.key[:SHORT], shard_bytes
        self._files_list = Path(folder) / "files.json"
        self._digests: dict[str, list[Any]] = _read_json(self._files_list)
        self._keys: dict[tuple[Path, float | None, float | None], str] = {}
        self._places: dict[str, tuple[str, int, int]] = {}
        self._maps: dict[str, np.ndarray] = {}
        self._find()

    def _find(self) -> None:
        for index in self.folder.glob("*.json"):
            if index.with_suffix(".npy").is_file():
                self._places.update({key: (index.stem, first, count) for key, (first, count) in _read_json(index).items()})

    def key(self, clip: Clip) -> str:
        """By which a clip is known: the content of its sound file, its start and its end."""
        place = (clip.audio, clip.start, clip.end)
        if place not in self._keys:
            found = hashlib.blake2b(f"{self._digest(clip)} {clip.start} {clip.end}".encode(), digest_size=16)
            self._keys[place] = found.hexdigest()
        return self._keys[place]

    def _digest(self, clip: Clip) -> str:
        """Hash of a file, which is read again only if its size or time is another."""
        path = clip.audio.resolve()
        try:
            now = path.stat()
            known = self._digests.get(str(path))
            if known is None or known[:2] != [now.st_size, now.st_mtime_ns]:
                known = [now.st_size, now.st_mtime_ns, digest([path])]
                self._digests[str(path)] = known
        except OSError as error:
            raise CorpusError(f"{clip.place}: {clip.audio} cannot be read ({error.strerror}).") from None
        return str(known[2])

    def prepare(self, clips: Iterable[Clip]) -> None:
        """Compute and keep what is missing.

        Raises:
            MediaError, CorpusError: a clip cannot be heard.
            ValueError: the disk has no room, or values are too large for half precision.
        """
        before = len(self._digests)
        missing = list({self.key(clip): clip for clip in clips if self.key(clip) not in self._places}.items())
        if len(self._digests) > before or not self._files_list.is_file():
            write_text(self._files_list, json.dumps(self._digests))
        if not missing:
            return
        shard = _Shard()
        with bar(f"hidden states of {self.upstream.name}", len(missing)) as progress:
            for start in range(0, len(missing), TOGETHER):
                part = missing[start : start + TOGETHER]
                clips_now = [clip for _, clip in part]
                found = _encoded(self.upstream, clips_now, [clip.wave() for clip in clips_now])
                if start == 0:
                    self._check_room(len(missing), found)
                for (key, clip), states in zip(part, found, strict=True):
                    self._keep(shard, key, clip, states)
                if shard.bytes >= self.shard_bytes:
                    self._write(shard)
                    shard = _Shard()
                progress.advance(len(part))
        if shard.keys:
            self._write(shard)

    def _keep(self, shard: _Shard, key: str, clip: Clip, states: Tensor) -> None:
        largest = float(states.abs().max()) if states.numel() else 0.0
        if largest > LARGEST_HALF:
            raise ValueError(
                f"{self.upstream.name}: a hidden state of {clip.id} is {largest:g}, too large for half precision; go on with --no-cache."
            )
        shard.keys.append(key)
        shard.states.append(states.half().numpy())
        shard.bytes += shard.states[-1].nbytes

    def _check_room(self, clips: int, first: Sequence[Tensor]) -> None:
        """A guess from some clips, so that a full disk is not found out after hours."""
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, free = clips * 2 * sum(states.numel() for states in first) / len(first), shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"{self.folder}: about {needed / 1e9:.0f} GB of hidden states do not fit into the {free / 1e9:.0f} GB that are free; name "
                "another place with --cache, or go on with --no-cache."
            )

    def _write(self, shard: _Shard) -> None:
        name = hashlib.blake2b(" ".join(shard.keys).encode(), digest_size=8).hexdigest()
        counts = [len(states) for states in shard.states]
        firsts = np.cumsum([0, *counts[:-1]]).tolist()
        with atomic_path(self.folder / f"{name}.npy") as temporary:
            np.save(temporary, np.concatenate(shard.states))
        places = dict(zip(shard.keys, zip(firsts, counts), strict=True))
        write_text(self.folder / f"{name}.json", json.dumps(places))  # last: a shard counts from here on
        self._places.update({key: (name, first, count) for key, (first, count) in places.items()})

    def frames(self, clip: Clip) -> int:
        """How many there are of a clip."""
        return self._places[self.key(clip)][2]

    def of(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """(frames, layers, width) of each, float16."""
        found = []
        for piece in pieces:
            name, first, count = self._places[self.key(piece.clip)]
            if name not in self._maps:
                self._maps[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            start = first + min(piece.first, count)
            end = first + count if piece.count is None else min(start + piece.count, first + count)
            found.append(torch.from_numpy(self._maps[name][start:end].copy()))
        return found


def _samples(clip: Clip) -> int:
    """Length of a clip at 16 kHz; of sound files from their header alone."""
    import soundfile

    if clip.audio.suffix.lower() not in SOUND_FILES or clip.start is not None or clip.end is not None:
        return len(clip.wave())
    try:
        about = soundfile.info(str(clip.audio))
    except (soundfile.SoundFileError, RuntimeError):  # a coding of which read_audio may know more
        return len(clip.wave())
    return round(about.frames * SAMPLE_RATE / about.samplerate)


def _encoded(upstream: Upstream, clips: Sequence[Clip], waves: Sequence[np.ndarray]) -> list[Tensor]:
    """States of clips; an error says of which."""
    try:
        return upstream.states(waves)
    except ValueError as error:
        if len(clips) > 1:
            return [_encoded(upstream, [clip], [wave])[0] for clip, wave in zip(clips, waves, strict=True)]
        raise CorpusError(f"{clips[0].place}: {clips[0].id}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    """Empty if the file is not there or damaged: what it would say is computed again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
