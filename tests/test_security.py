"""What SECURITY.md promises: nothing that is read is run, nothing is written where a file asks for it, uploads are bounded."""

import ast
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avtlm.checkpoint import load_config, load_weights
from avtlm.convert.pickles import TorchFile
from avtlm.data.manifest import Manifest, ManifestError, Utterance, read_manifest, write_manifest
from avtlm.data.media import read_lip_crops
from avtlm.data.shards import Shard, head_line
from avtlm.lips.landmarks import read_landmarks

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for top in ("avtlm", "preprocess", "demos", "benchmarks") for path in (ROOT / top).rglob("*.py"))

RUNS = {  # calls that run what they read, or write where an archive says
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "cPickle.load",
        "dill.load",
        "dill.loads",
        "cloudpickle.load",
        "cloudpickle.loads",
    ),
    *("joblib.load", "shelve.open", "marshal.load", "marshal.loads", "torch.load", "torch.jit.load", "torch.hub.load", "pd.read_pickle"),
    *("eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "shutil.unpack_archive"),
    *("tempfile.mktemp", "__import__"),
}
EXTRACTS = {"extractall", "extract"}  # methods of archives
DOORS = {"yaml.load": "avtlm/plain_yaml.py"}  # with a loader of its own, which makes plain values only


def name_of(node: ast.expr) -> str:
    """``a.b.c`` of a chain of names, otherwise the empty text."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def dangers(source: str, path: str) -> Iterator[str]:
    """Calls in a source file that could run or extract what they read."""
    tree = ast.parse(source)
    origins = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    } | {alias.asname: alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names if alias.asname}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, _, rest = name_of(node.func).partition(".")
        name = ".".join(filter(None, (origins.get(first, first), rest)))
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in RUNS or (name in DOORS and path != DOORS[name]):
            yield f"{path}:{node.lineno} {name}"
        if isinstance(node.func, ast.Attribute) and node.func.attr in EXTRACTS and name != "re.extract":
            yield f"{path}:{node.lineno} {node.func.attr}"
        if name in ("np.load", "numpy.load") and not (
            isinstance(given.get("allow_pickle"), ast.Constant) and given["allow_pickle"].value is False
        ):
            yield f"{path}:{node.lineno} {name} without allow_pickle=False"
        for flag in ("shell", "trust_remote_code", "allow_pickle"):
            if isinstance(given.get(flag), ast.Constant) and given[flag].value is True:
                yield f"{path}:{node.lineno} {name} with {flag}=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_or_extracts_what_it_reads(path: Path) -> None:
    assert list(dangers(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle\npickle.load(f)",
        "from pickle import loads as l\nl(b)",
        "import torch as t\nt.load(f, weights_only=False)",
        "import torch\ntorch.load(f)",
        "import numpy as np\nnp.load(f)",
        "import numpy\nnumpy.load(f, allow_pickle=True)",
        "import tarfile\ntarfile.open(f).extractall('.')",
        "eval(text)",
        "import subprocess\nsubprocess.run(c, shell=True)",
        "import yaml\nyaml.load(t, Loader=yaml.Loader)",
        "M.from_pretrained(n, trust_remote_code=True)",
    ],
)
def test_the_search_for_dangers_finds_them(line: str) -> None:
    assert len(list(dangers(line, "made.py"))) >= 1


def test_only_two_files_subclass_an_unpickler_and_both_choose_what_it_may_find() -> None:
    users = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(name_of(base).endswith("Unpickler") for base in node.bases):
                users[path.relative_to(ROOT).as_posix()] = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
    assert set(users) == {"avtlm/convert/pickles.py", "avtlm/lips/landmarks.py"}
    assert all("find_class" in methods for methods in users.values())


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.folder),)


def hostile_files(folder: Path, made: Path) -> dict[str, Path]:
    """A program in every container that a reader opens."""
    program = pickle.dumps({"model": Hostile(made)}, protocol=2)
    (folder / "points.pkl").write_bytes(program)
    (folder / "old.pt").write_bytes(program)
    with zipfile.ZipFile(folder / "new.pt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    for name in ("crops.npy", "points.npy"):
        np.save(folder / name, np.array([Hostile(made)], dtype=object), allow_pickle=True)
    np.savez(folder / "points.npz", landmarks=np.array([Hostile(made)], dtype=object))
    (folder / "model").mkdir()
    (folder / "model" / "weights.safetensors").write_bytes(program)
    (folder / "model" / "config.yaml").write_text(f"system: !!python/object/apply:os.mkdir ['{made}']\n")
    return {path.name: path for path in folder.iterdir()}


def test_programs_in_data_are_refused_and_never_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (tmp_path / "in").mkdir()
    files = hostile_files(tmp_path / "in", made)
    readers = {
        "points.pkl": read_landmarks,
        "points.npy": read_landmarks,
        "points.npz": read_landmarks,
        "crops.npy": read_lip_crops,
        "old.pt": TorchFile,
        "new.pt": TorchFile,
        "model": load_weights,
    }
    for name, reader in readers.items():
        with pytest.raises(ValueError) as caught:
            reader(files[name])
        assert "\n" not in str(caught.value)
        assert not made.exists(), name
    with pytest.raises(ValueError):
        load_config(files["model"])
    assert not made.exists()
    pickle.loads((tmp_path / "in" / "points.pkl").read_bytes())
    assert made.exists()  # the programs do work


@pytest.mark.parametrize("name", ["../outside.tar", "/tmp/outside.tar", "a/../../b.tar", "..", ".tar", "a\0.tar"])
def test_an_index_cannot_name_a_shard_elsewhere(tmp_path: Path, name: str) -> None:
    line = json.dumps({"id": "a", "shard": 0, "members": {}})
    (tmp_path / "shards.jsonl").write_text(f"{head_line([Shard(name, 1, '0', 1, 1)], 'key')}\n{line}\n")
    with pytest.raises(ManifestError, match="is not the head of an index"):
        read_manifest(tmp_path / "shards.jsonl")


def test_archives_with_names_that_lead_elsewhere_are_read_and_nothing_is_written(tmp_path: Path) -> None:
    """Alignments of GRID in a tar file: members are read in memory, whatever they are called."""
    from preprocess.corpora.grid import read

    root = tmp_path / "grid"
    (root / "s1").mkdir(parents=True)
    (root / "s1" / "bbaf2n.mpg").write_bytes(b"video")
    with tarfile.open(root / "alignments.tar.gz", "w:gz") as archive:
        for name in ("../../escaped.align", "/escaped.align", "s1/../../bbaf2n.align", "s1/bbaf2n.align"):
            content = b"0 1000 bin\n1000 2000 blue\n2000 3000 at\n3000 4000 f\n4000 5000 two\n5000 6000 now\n"
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("s1/lrae3s.align")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    (row,) = read(root).rows
    assert len(row.extra["words"]) == 6
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/../../b"])
def test_ids_cannot_lead_out_of_the_folders_that_are_written(tmp_path: Path, name: str) -> None:
    from preprocess.clips import InputError, find_clips

    write_manifest(tmp_path / "manifest.jsonl", Manifest(tmp_path, (Utterance(name, video="a.mp4"),)))
    with pytest.raises(InputError, match="would lead out of the output folder"):
        find_clips(tmp_path)


def test_uploads_of_the_demo_are_bounded_in_bytes_seconds_and_pixels() -> None:
    pytest.importorskip("gradio")
    from demos import noisy_clip, noisy_speech

    size = int(noisy_speech.LARGEST_UPLOAD.removesuffix("mb"))
    assert size <= 100
    assert noisy_clip.MAX_SECONDS <= 20
    assert noisy_clip.MAX_NOISE_SECONDS <= 600
    assert noisy_clip.MAX_PIXELS <= 4096 * 2304
    launch = next(
        node
        for node in ast.walk(ast.parse(Path(noisy_speech.__file__).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "launch"
    )
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in launch.keywords}
    assert given["max_file_size"] == "LARGEST_UPLOAD"
    assert given["share"] == "False"


def test_the_promises_are_written_down() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for word in ("pickle", "safetensors", "tar", "100 MB", "20 s", "temporary", "python -m benchmarks.fuzz"):
        assert word in text, word
