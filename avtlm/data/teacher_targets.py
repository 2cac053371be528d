"""What teachers say about the clips of a corpus, on disk: a folder that ``avtlm teach`` fills, and from which students learn.

A folder holds ``teach.json`` (which teachers, their widths and rates, the names of sounds) and ``targets-00000.safetensors`` and so on, one
file for every ``PIECE`` rows of the manifest, in its order. In a file, ``<id>.speech`` is float16 (frames, width), ``<id>.sound`` float32
(classes,), ``<id>.speaker`` float32 (width,); a clip that could not be heard has none, and ``failed.jsonl`` says why.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

ABOUT, FAILED = "teach.json", "failed.jsonl"
TEACHERS = ("speech", "sound", "speaker")
TeacherName = Literal["speech", "sound", "speaker"]
PIECE = 200  # clips of a file
OPEN_FILES = 16


class TargetsError(ValueError):
    """A folder of teachers' answers that is missing, incomplete, damaged or of something else; one sentence."""


@dataclass(frozen=True)
class TaughtBy:
    """What one teacher gives.

    Attributes:
        source: where it was loaded from.
        width: values of a frame, of a clip, or of a voice.
        rate: frames per second, 0 of what is said about a clip as a whole.
    """

    source: str
    width: int
    rate: float = 0.0


@dataclass(frozen=True)
class About:
    """What a folder holds.

    Attributes:
        identity: of the clips and teachers; a stopped run goes on if it is the same.
        rows: of the manifest.
        teachers: by name.
        tags: names of the classes of sounds, in their order; empty where the teacher names none.
    """

    identity: str
    rows: int
    teachers: Mapping[str, TaughtBy]
    tags: tuple[str, ...] = ()

    @property
    def pieces(self) -> int:
        return -(-self.rows // PIECE)

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self) | {"teachers": {name: asdict(each) for name, each in self.teachers.items()}}, indent=1) + "\n"


def read_about(folder: str | Path) -> About:
    """What ``teach.json`` of a folder says.

    Raises:
        TargetsError: there is none, or it is damaged.
    """
    path = Path(folder) / ABOUT
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        teachers = {name: TaughtBy(**told["teachers"][name]) for name in TEACHERS if name in told["teachers"]}
        return About(str(told["identity"]), int(told["rows"]), teachers, tuple(told["tags"]))
    except FileNotFoundError as error:
        raise TargetsError(f"{path} is missing; give a folder that avtlm teach has written.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TargetsError(f"{path} is damaged ({error}); run avtlm teach again into another folder.") from error


def piece_path(folder: str | Path, piece: int) -> Path:
    """The file of a piece."""
    return Path(folder) / f"targets-{piece:05d}.safetensors"


def key(utterance: str, teacher: str) -> str:
    """The name of an answer in its file."""
    return f"{utterance}.{teacher}"


@dataclass
class TeacherTargets:
    """The answers of a folder; files are opened as they are needed, and their tensors read one by one.

    Attributes:
        about: what it holds.
    """

    folder: Path
    about: About
    _places: dict[str, int] = field(default_factory=dict)
    _open: OrderedDict[int, Any] = field(default_factory=OrderedDict)

    @classmethod
    def read(cls, folder: str | Path) -> "TeacherTargets":
        """Index all files of a folder.

        Raises:
            TargetsError: the folder is missing, incomplete or damaged.
        """
        found = cls(Path(folder), read_about(folder))
        missing = [piece for piece in range(found.about.pieces) if not piece_path(folder, piece).exists()]
        if missing:
            raise TargetsError(
                f"{folder}: {len(missing)} of {found.about.pieces} files are missing ({piece_path(folder, missing[0]).name}); "
                "run avtlm teach again, which goes on where it was."
            )
        for piece in range(found.about.pieces):
            for name in found._handle(piece).keys():  # noqa: SIM118 (not a dictionary)
                found._places[name] = piece
        return found

    def has(self, utterance: str, teacher: str) -> bool:
        """Whether a teacher has said something about an utterance."""
        return key(utterance, teacher) in self._places

    def unheard(self, utterances: Iterable[str]) -> list[str]:
        """Those about which no teacher has said anything."""
        return [name for name in utterances if not any(self.has(name, teacher) for teacher in TEACHERS)]

    def of(self, utterance: str, teachers: Sequence[str] = TEACHERS) -> dict[str, Tensor]:
        """What these teachers have said about an utterance, float32.

        Raises:
            TargetsError: a file is damaged.
        """
        found = {}
        for teacher in teachers:
            name = key(utterance, teacher)
            if name in self._places:
                try:
                    found[teacher] = self._handle(self._places[name]).get_tensor(name).float()
                except SafetensorError as error:
                    raise self._damaged(self._places[name], error) from error
        return found

    def _handle(self, piece: int) -> Any:
        """A file, open; the one unused for longest is closed."""
        if piece not in self._open:
            try:
                self._open[piece] = safe_open(piece_path(self.folder, piece), framework="pt")
            except (SafetensorError, OSError) as error:
                raise self._damaged(piece, error) from error
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(piece)
        return self._open[piece]

    def _damaged(self, piece: int, error: Exception) -> TargetsError:
        return TargetsError(f"{piece_path(self.folder, piece)}: damaged ({error}); delete it and run avtlm teach again.")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}  # a worker opens files of its own
