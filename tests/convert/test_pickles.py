"""Checkpoints are read without running them: what a pickle asks for is known, stands in, or is refused."""

import argparse
import builtins
import enum
import functools
import os
import pickle
import shutil
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch

from avtlm.convert.pickles import StoredTensor, TorchFile, TorchFileError, plain
from avtlm.convert.stand_ins import Ordered, StandIn
from tests.golden_case import ROOT

CASE = ROOT / "avhubert/checkpoints"
STATE = {
    "float": torch.arange(12.0).reshape(3, 4),
    "turned": torch.arange(12.0).reshape(3, 4).t(),
    "part": torch.arange(10)[3:7],
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "bfloat": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "bool": torch.tensor([True, False, True]),
    "odd": torch.tensor([1, 2, 3], dtype=torch.uint8),  # shifts what follows off its alignment in the older format
    "double": torch.tensor([0.1], dtype=torch.float64),
    "nothing": torch.empty(0, 3),
    "scalar": torch.tensor(7),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}


@pytest.fixture(params=[True, False], ids=["zip", "older format"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        path = tmp_path / "model.pt"
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return path

    return write


def test_tensors_of_every_kind_are_read_back_bit_for_bit(save: Callable[[Any], Path]) -> None:
    content = TorchFile(save({"model": OrderedDict(STATE), "epoch": 3})).content
    assert content["epoch"] == 3
    for name, expected in STATE.items():
        found = content["model"][name].read()
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected), name


def test_reading_never_changes_the_file(save: Callable[[Any], Path]) -> None:
    path = save(STATE)
    before = path.read_bytes()
    TorchFile(path).content["float"].read().zero_()
    assert path.read_bytes() == before
    assert torch.equal(TorchFile(path).content["float"].read(), STATE["float"])


def test_tensors_nobody_asks_for_are_never_read(save: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = TorchFile(save({"model": torch.ones(3), "last_optimizer_state": torch.ones(5)}))
    read, values = [], TorchFile.values
    monkeypatch.setattr(TorchFile, "values", lambda *given: read.append(given[3]) or values(*given))
    assert isinstance(file.content["last_optimizer_state"], StoredTensor)
    assert file.content["model"].read().tolist() == [1, 1, 1]
    assert read == [3]


@pytest.mark.parametrize("name", ["pretrained", "finetuned"])
def test_golden_checkpoints_hold_the_stated_weights(name: str) -> None:
    from safetensors.torch import load_file

    expected = load_file(CASE / f"{name}.safetensors")
    found = TorchFile(CASE / f"{name}.pt").content["model"]
    assert expected
    assert set(found) == set(expected)
    assert all(torch.equal(found[key].read(), tensor) for key, tensor in expected.items())


# Objects --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def foreign() -> Iterator[types.ModuleType]:
    """A module that exists while a file is written, as fairseq does on the machines that write checkpoints, and not when it is read."""
    made = []
    for name in ("fairseq", "fairseq.made"):
        made.append(types.ModuleType(name))
        sys.modules[name] = made[-1]
    yield made[-1]
    for name in ("fairseq", "fairseq.made"):
        sys.modules.pop(name, None)


def test_fairseq_classes_stand_in_and_are_never_imported(foreign: types.ModuleType, save: Callable[[Any], Path]) -> None:
    class Choice(enum.Enum):
        left = "left"  # named like its value, as fairseq's are: some versions of Python write the one, some the other

    class Meter:
        def __init__(self) -> None:
            self.total = 3

        def __setstate__(self, state: Any) -> None:
            raise AssertionError("ran")

    for kind in (Choice, Meter):
        kind.__module__, kind.__qualname__ = "fairseq.made", kind.__name__
        setattr(foreign, kind.__name__, kind)
    path = save({"meter": Meter(), "cfg": {"choice": Choice.left, "args": argparse.Namespace(lr=[0.1], task=None)}})
    sys.modules.pop("fairseq.made")
    content = TorchFile(path).content
    assert isinstance(content["meter"], StandIn)
    assert content["meter"].official == "fairseq.made.Meter"
    assert content["meter"].state == {"total": 3}
    assert plain(content["cfg"]) == {"choice": "left", "args": {"lr": [0.1], "task": None}}
    assert "fairseq.made" not in sys.modules


@pytest.mark.parametrize("by", ["value", "name"])
def test_members_of_enumerations_are_read_as_every_version_of_python_writes_them(
    foreign: types.ModuleType, save: Callable[[Any], Path], by: str
) -> None:
    class Choice(enum.Enum):
        left = "left"

        def __reduce_ex__(self, protocol: Any) -> Any:  # by name: early versions of Python 3.11
            return (type(self), (self.value,)) if by == "value" else (getattr, (type(self), self.name))

    Choice.__module__, Choice.__qualname__ = "fairseq.made", "Choice"
    foreign.Choice = Choice  # type: ignore[attr-defined]
    member = TorchFile(save({"choice": Choice.left})).content["choice"]
    assert isinstance(member, StandIn)
    assert (member.official, plain(member)) == ("fairseq.made.Choice", "left")


def test_omegaconf_containers_become_plain(foreign: types.ModuleType, save: Callable[[Any], Path]) -> None:
    sys.modules["omegaconf"] = module = types.ModuleType("omegaconf")
    made: dict[str, type] = {}
    for name in ("DictConfig", "ListConfig", "AnyNode", "Metadata"):
        made[name] = type(name, (), {"__module__": "omegaconf"})
        setattr(module, name, made[name])

    def node(kind: str, **state: Any) -> Any:
        value = made[kind]()
        value.__dict__.update(_metadata=made["Metadata"](), _parent=None, **state)
        return value

    inner = node("ListConfig", _content=[node("AnyNode", _val=1), node("AnyNode", _val="x")])
    path = save({"cfg": node("DictConfig", _content={"a": node("AnyNode", _val=0.5), "b": inner, "c": node("DictConfig", _content=None)})})
    del sys.modules["omegaconf"]
    assert plain(TorchFile(path).content["cfg"]) == {"a": 0.5, "b": [1, "x"], "c": None}


def test_numbers_of_numpy_become_plain(save: Callable[[Any], Path]) -> None:
    content = TorchFile(save({"cfg": {"best": np.float64(3.25), "step": np.int64(-7)}})).content
    assert plain(content["cfg"]) == {"best": 3.25, "step": -7}


def test_a_sentencepiece_model_is_kept_as_bytes(save: Callable[[Any], Path]) -> None:
    proto = TorchFile(CASE / "finetuned.pt").content["task_state"]["s2s_tokenizer"].state["sp"].state["model_proto"]
    content = TorchFile(save(sentencepiece.SentencePieceProcessor(model_proto=proto))).content
    assert content.official == "sentencepiece.SentencePieceProcessor"
    assert content.state["model_proto"] == proto


# Refusals -------------------------------------------------------------------------------------------------------------------------------


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


ATTACKS = {
    "posix.system": lambda mark: Runs(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Runs(builtins.eval, f"open({str(mark)!r}, 'w')"),
    "builtins.exec": lambda mark: Runs(builtins.exec, f"open({str(mark)!r}, 'w')"),
    "builtins.getattr": lambda mark: Runs(getattr, 1, "real"),  # of anything but an enumeration
    "io.open": lambda mark: Runs(open, str(mark), "w"),
    "shutil.rmtree": lambda mark: Runs(shutil.rmtree, str(mark.parent)),
    "functools.partial": lambda mark: Runs(functools.partial, os.system, f"touch {mark}"),
    "torch.serialization.load": lambda mark: Runs(torch.load, str(mark)),
    "torch.hub.load": lambda mark: Runs(torch.hub.load, str(mark)),
    "numpy.load": lambda mark: Runs(np.load, str(mark)),
    "sentencepiece.SentencePieceTrainer": lambda mark: sentencepiece.SentencePieceTrainer,
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_foreign_code_is_refused_by_name_and_never_runs(tmp_path: Path, name: str, protocol: int) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    torch.save({"model": {"x": torch.ones(2)}, "evil": ATTACKS[name](mark)}, path, pickle_protocol=protocol)
    with pytest.raises(TorchFileError, match="could run foreign code") as caught:
        TorchFile(path)
    assert f"asks for {name}," in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval"])
def test_foreign_code_in_the_older_format_is_refused(tmp_path: Path, name: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    torch.save({"evil": ATTACKS[name](mark)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(TorchFileError, match="could run foreign code"):
        TorchFile(path)
    path.write_bytes(pickle.dumps(ATTACKS[name](mark)))  # not even a checkpoint: its first pickle is the attack
    with pytest.raises(TorchFileError, match="could run foreign code"):
        TorchFile(path)
    assert not mark.exists()


def zipped(path: Path, program: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", program)
    return path


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cfairseq.made\nMeter\n(dX\x01\x00\x00\x00aK\x01sb.",  # a state for a class, not for an object
        b"\x80\x02ccollections\nOrderedDict\nN}X\x06\x00\x00\x00updateK\x01s\x86b.",  # attributes set on an allowed class
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nK\x01K\x00))\x89Nt.",
        b"\x80\x02U\x07storageQ.",
        b"\x80\x02" + b"(" * 3 + b".",
        b"",
    ],
)
def test_malformed_programs_are_damaged_files(tmp_path: Path, program: bytes) -> None:
    before = (Ordered.update, StandIn.__setstate__)
    with pytest.raises(TorchFileError, match=r"evil\.pt is truncated, damaged"):
        TorchFile(zipped(tmp_path / "evil.pt", program))
    assert (Ordered.update, StandIn.__setstate__) == before


def test_dotted_names_are_not_followed(tmp_path: Path) -> None:
    program = b"\x80\x04\x8c\x07fairseq\x8c\x09os.system\x93\x8c\x04true\x85R."
    content = TorchFile(zipped(tmp_path / "odd.pt", program)).content
    assert isinstance(content, StandIn)
    assert (content.official, content.arguments) == ("fairseq.os.system", ("true",))


def test_a_truncated_file_is_called_so(save: Callable[[Any], Path], tmp_path: Path) -> None:
    whole = save(STATE).read_bytes()
    for size in (0, 3, 40, len(whole) // 2, len(whole) - 10):
        path = tmp_path / "cut.pt"
        path.write_bytes(whole[:size])
        with pytest.raises(TorchFileError, match=r"cut\.pt is (truncated|no checkpoint)"):
            TorchFile(path)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    text, archive, script = tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "c.pt"
    text.write_text("hello")
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("x/readme.txt", "hello")
    with zipfile.ZipFile(script, "w") as made:  # the layout of TorchScript, which holds code
        for name in ("constants.pkl", "data.pkl"):
            made.writestr(f"x/{name}", pickle.dumps(()))
    for path, message in ((text, "damaged or no checkpoint of torch"), (archive, "zip archive, but no"), (script, "zip archive, but no")):
        with pytest.raises(TorchFileError, match=message):
            TorchFile(path)


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(2, (2,), (1,)), (0, (4,), (1,)), (0, (2, 2), (2, 1)), (-1, (1,), (1,)), (0, (1,), ()), (0, (10**12,), (0,))],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
    path = tmp_path / "model.pt"
    torch.save(torch.ones(3), path)
    stored = TorchFile(path).content
    with pytest.raises(TorchFileError, match="lies beyond its storage"):
        StoredTensor(stored.storage, offset, shape, stride).read()


def test_a_storage_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(torch.ones(3), path)
    stored = TorchFile(path).content
    object.__setattr__(stored.storage, "count", 4)
    with pytest.raises(TorchFileError, match="too few values"):
        StoredTensor(stored.storage, 0, (4,), (1,)).read()


def test_a_configuration_holds_plain_values_only() -> None:
    with pytest.raises(TorchFileError, match=r"cfg\.model\.x holds a complex"):
        plain({"model": {"x": 1j}})
