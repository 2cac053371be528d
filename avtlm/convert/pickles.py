"""Reads what ``torch.save`` wrote without running any of it: official checkpoints are pickles, and a pickle is a program.

What is unusual here:
- Every global that a file asks for is either one of a few that are known to be harmless, a stand-in that keeps what it is given and does
  nothing, or refused by name. No class of fairseq, omegaconf or argparse is ever imported, and no function of a file's choice called.
- Tensors stay in the file until they are asked for (memory-mapped), so the optimiser's state, two thirds of a training checkpoint, is
  never read.

Both formats of torch are read: zip archives (since 1.6) and the older row of pickles followed by raw storages.
"""

import math
import mmap
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from avtlm.convert.stand_ins import Encoded, ForeignError, Harmless, Member, NumpyScalar, NumpyType, Ordered, Reconstructed, Shape, StandIn

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What official checkpoints hold besides plain values and tensors; whole packages, or single names.
KEPT_PACKAGES = ("fairseq", "omegaconf", "avhubert", "vathubert", "fairseq_user_dir")
KEPT_NAMES = {
    ("argparse", "Namespace"),
    ("sentencepiece", "SentencePieceProcessor"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
    ("pathlib", "PosixPath"),
    ("torch", "device"),
    *(("typing", name) for name in ("Any", "Union", "Optional", "Dict", "List", "Tuple")),
    *(("builtins", name) for name in ("int", "float", "bool", "str", "bytes", "list", "tuple", "dict", "set", "frozenset", "object")),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
}
OLD_NAMES = {("__builtin__", "long"): ("builtins", "int"), ("__builtin__", "unicode"): ("builtins", "str")}


class TorchFileError(ValueError):
    """A file that is no checkpoint of torch, is damaged, or asks for foreign code; one sentence."""


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of values in a file; ``read`` maps it into memory."""

    file: "TorchFile"
    key: str
    dtype: torch.dtype
    count: int

    def read(self) -> Tensor:
        """(count,), a private copy-on-write view of the file. Raises TorchFileError if the file is too short."""
        return self.file.values(self.key, self.dtype, self.count)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that is still in its file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    def read(self) -> Tensor:
        """The tensor. Raises TorchFileError: it reaches beyond its storage, or the file is too short."""
        sizes = (self.offset, *self.shape, *self.stride)
        good = len(self.shape) == len(self.stride) and all(type(size) is int and size >= 0 for size in sizes)
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=False))
        if not good or (0 not in self.shape and max(last + 1, math.prod(self.shape)) > self.storage.count):
            raise TorchFileError(f"{self.storage.file.path} is damaged: a tensor of shape {list(self.shape)} lies beyond its storage.")
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype)
        return self.storage.read().as_strided(self.shape, self.stride, self.offset)


# Counterparts of two more functions, as those in stand_ins.py.


class _Rebuilt(Harmless):
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2."""

    def __new__(cls, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> StoredTensor:  # type: ignore[misc]
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("a tensor without a storage")
        return StoredTensor(storage, offset, tuple(shape), tuple(stride))


class _Parameter(Harmless):
    """torch._utils._rebuild_parameter: the tensor inside."""

    def __new__(cls, data: Any, *rest: Any) -> Any:
        return data


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: torch.dtype


REPLACED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Ordered,
    ("_codecs", "encode"): Encoded,
    ("torch._utils", "_rebuild_tensor"): _Rebuilt,
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuilt,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch", "Size"): Shape,
    ("numpy", "dtype"): NumpyType,
    ("numpy.core.multiarray", "scalar"): NumpyScalar,
    ("numpy._core.multiarray", "scalar"): NumpyScalar,
    ("copyreg", "_reconstructor"): Reconstructed,
    ("copy_reg", "_reconstructor"): Reconstructed,
    ("builtins", "getattr"): Member,
}


class _WholeLines:
    """A stream whose lines have to end: the unpickler in Python takes the half name of a class in a cut file for a whole one."""

    def __init__(self, stream: Any) -> None:
        self.read, self._stream = stream.read, stream

    def readline(self) -> bytes:
        line: bytes = self._stream.readline()
        if not line.endswith(b"\n"):
            raise pickle.UnpicklingError("pickle data was truncated")
        return line


class _Unpickler(pickle._Unpickler):
    """The unpickler in Python: the one in C makes a table as large as the largest number that a file asks it to remember something under,
    so that a few bytes take all memory."""

    def __init__(self, stream: BinaryIO, file: "TorchFile") -> None:
        super().__init__(_WholeLines(stream))
        self._file = file
        self._stand_ins: dict[tuple[str, str], type[StandIn]] = {}

    def find_class(self, module: str, name: str) -> Any:
        module, name = OLD_NAMES.get((module, name), ("builtins" if module == "__builtin__" else module, name))
        if (module, name) in REPLACED:
            return REPLACED[module, name]
        if module in ("torch", "torch.cuda") and name in DTYPES:
            return _StorageType(DTYPES[name])
        package = module.split(".")[0]
        if (module, name) in KEPT_NAMES or package in KEPT_PACKAGES or package.startswith("fairseq_user_dir_"):
            made = self._stand_ins.get((module, name))
            if made is None:
                made = self._stand_ins[module, name] = type("StandIn", (StandIn,), {"official": f"{module}.{name}"})
            return made
        raise ForeignError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], _StorageType)):
            raise pickle.UnpicklingError("an unknown kind of stored object")
        _, kind, key, _, count, *view = pid
        if not isinstance(key, str) or type(count) is not int or count < 0 or any(part is not None for part in view):
            raise pickle.UnpicklingError("a storage without a place")
        self._file.widths[key] = kind.dtype.itemsize
        return Storage(self._file, key, kind.dtype, count)


class TorchFile:
    """A file of ``torch.save``.

    Attributes:
        content: what was saved, with `StoredTensor` for tensors and `StandIn` for objects.
        widths: bytes of one value of each storage.

    Raises:
        TorchFileError: not such a file, damaged, or asking for foreign code.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.widths: dict[str, int] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._size = self.path.stat().st_size
        self._map: mmap.mmap | None = None
        with open(self.path, "rb") as stream:
            start = stream.read(4)
            stream.seek(0)
            try:
                self.content = self._read_zip(stream) if start == b"PK\x03\x04" else self._read_legacy(stream)
            except TorchFileError:
                raise
            except ForeignError as asked:
                raise TorchFileError(
                    f"{self.path} is refused: its pickle asks for {asked}, which no official checkpoint needs and which could run "
                    "foreign code."
                ) from None
            except Exception as error:  # a damaged pickle may fail in any way; what it was is in the sentence
                reason = " ".join(str(error).split())[:120] or type(error).__name__
                raise TorchFileError(f"{self.path} is truncated, damaged or no checkpoint of torch ({reason}); copy it again.") from error

    def _read_zip(self, stream: BinaryIO) -> Any:
        with zipfile.ZipFile(stream) as archive:
            top = next((info.filename for info in archive.infolist() if info.filename.endswith("data.pkl")), "").removesuffix("data.pkl")
            records = {info.filename.removeprefix(top): info for info in archive.infolist() if info.filename.startswith(top)}
            if "constants.pkl" in records or "data.pkl" not in records:
                raise TorchFileError(f"{self.path} is a zip archive, but no checkpoint of torch.")
            if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
                raise TorchFileError(f"{self.path} is compressed; checkpoints of torch are not.")
            if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
                raise TorchFileError(f"{self.path} was written on a big-endian machine, whose numbers are not read here.")
            for name, info in records.items():
                if name.startswith("data/"):
                    stream.seek(info.header_offset + 26)
                    name_size, extra_size = struct.unpack("<HH", stream.read(4))
                    self._place(name.removeprefix("data/"), info.header_offset + 30 + name_size + extra_size, info.file_size)
            with archive.open(records["data.pkl"]) as pickled:
                return _Unpickler(pickled, self).load()  # type: ignore[arg-type]

    def _read_legacy(self, stream: BinaryIO) -> Any:
        def load() -> Any:
            return _Unpickler(stream, self).load()

        if load() != LEGACY_MAGIC or load() != LEGACY_PROTOCOL:
            raise TorchFileError(f"{self.path} is no checkpoint of torch.")
        system = load()
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise TorchFileError(f"{self.path} was written on a big-endian machine, whose numbers are not read here.")
        content, keys = load(), load()
        # Storages follow in the order of their keys: the number of values, then the values. The pickle told the type of each.
        for key in keys:
            (count,) = struct.unpack("<q", stream.read(8))
            length = count * self.widths[key]
            self._place(key, stream.tell(), length)
            stream.seek(length, 1)
        return content

    def _place(self, key: str, start: int, length: int) -> None:
        if length < 0 or start + length > self._size:
            raise TorchFileError(f"{self.path} is truncated; copy it again.")
        self._places[key] = (start, length)

    def values(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """``count`` values of a storage, (count,)."""
        start, length = self._places.get(key, (0, -1))
        if length < count * dtype.itemsize:
            raise TorchFileError(f"{self.path} is truncated or damaged: it holds too few values for a tensor; copy it again.")
        if self._map is None:
            with open(self.path, "rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        if start % dtype.itemsize:  # the older format does not align its values
            return torch.frombuffer(bytearray(self._map[start : start + count * dtype.itemsize]), dtype=dtype, count=count)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=start)


def plain(value: Any, what: str = "cfg") -> Any:
    """Dictionaries, lists and scalars from an unpickled configuration, whether it was pickled as such, as omegaconf's containers, or as a
    Namespace; enums become their values.

    Raises:
        TorchFileError: something that is no configuration.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {plain(key, what): plain(item, f"{what}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, what) for item in value]
    if isinstance(value, StandIn):
        state = value.state
        if isinstance(state, dict) and value.official.startswith("omegaconf."):
            return plain(state["_content"] if "_content" in state else state.get("_val"), what)
        if isinstance(state, dict):
            return plain({key: item for key, item in state.items() if not str(key).startswith("__")}, what)
        if len(value.arguments) == 1:  # an enum's member, or a path
            return plain(value.arguments[0], what)
    kind = value.official if isinstance(value, StandIn) else type(value).__name__
    raise TorchFileError(f"the checkpoint's {what} holds a {kind}, which is no part of a configuration.")
