"""The project can be built, says what it needs, and its documents agree with its code."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from avtlm.cli import _parser
from avtlm.data.media import write_wav
from avtlm.doctor import EXTRAS
from avtlm.errors import MissingExtra
from avtlm.evaluation.plots import wer_against_snr
from avtlm.evaluation.wer import corpus_wer
from avtlm.units import kmeans
from tests import made_media
from tests.made_model import save_tiny_recognizer

ROOT = Path(__file__).resolve().parent.parent


def section(name: str) -> list[str]:
    """The lines of one table of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    return text.split(f"[{name}]\n", 1)[1].split("\n[", 1)[0].splitlines()


def names(requirements: str) -> set[str]:
    return {match.lower() for match in re.findall(r'"([A-Za-z0-9_.-]+)', requirements)}


def test_doctor_knows_every_extra() -> None:
    extras = {line.split(" = ")[0] for line in section("project.optional-dependencies") if " = " in line and not line.startswith("#")}
    assert set(EXTRAS) == extras - {"all", "dev", "docs"}


def constraints() -> list[str]:
    return [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line and not line.startswith("#")]


def test_every_requirement_is_pinned_for_the_tests() -> None:
    pinned = {line.split("==")[0].lower() for line in constraints()}
    project = "\n".join(section("project"))
    needed = names(project.split("dependencies = [", 1)[1])
    for line in section("project.optional-dependencies"):
        name, _, packages = line.partition(" = ")
        if packages and name in ("lips", "synthetic", "demo", "shards", "export", "s3", "cluster", "tensorboard", "wandb", "dev", "docs"):
            needed |= names(packages)
    assert needed - pinned == set()


def test_the_readme_names_every_verb_and_no_other() -> None:
    actions = next(action for action in _parser()._actions if action.dest == "verb")
    assert actions.choices is not None
    text = (ROOT / "README.md").read_text()
    verbs = set(dict(actions.choices))
    named = set(re.findall(r"`avtlm ([a-z-]+)", text))
    assert named == {verb.split()[0] for verb in verbs}
    assert [verb for verb in verbs if f"`avtlm {verb}`" not in text] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_what_the_documents_point_to_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    modules = [module.replace(".", "/") + ".py" for module in re.findall(r"-m (demos\.\w+)", text)]
    configs = re.findall(r"configs/\w+/\w+\.yaml", text)
    assert [path for path in linked + modules + configs if not (ROOT / path).exists()] == []


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)`", (ROOT / "README.md").read_text())) <= targets


def test_the_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "    make test\n" in (ROOT / "README.md").read_text()


def test_bootstrap_does_nothing_twice(tmp_path: Path) -> None:
    """A stand-in for .venv that is up to date is left as it is."""
    for name in ("bootstrap.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    state = subprocess.run(
        [sys.executable, "-c", "import bootstrap; print(bootstrap.fingerprint(), end='')"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / ".venv" / "installed").write_text(state)
    result = subprocess.run([sys.executable, "bootstrap.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def metadata() -> dict[str, Any]:
    """The table ``project`` of pyproject.toml."""
    try:
        import tomllib
    except ModuleNotFoundError:  # before Python 3.11
        from pip._vendor import tomli as tomllib
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def test_requirements_can_be_met_together_and_extras_name_extras_that_there_are() -> None:
    project = metadata()
    extras = project["optional-dependencies"]
    lines = (line.split(";")[0].strip().split("==") for line in constraints())
    pinned = {canonicalize_name(name): version for name, version in lines}
    for text in [*project["dependencies"], *(text for group in extras.values() for text in group)]:
        requirement = Requirement(text)
        if requirement.name == "avtlm":
            assert requirement.extras <= extras.keys()
        elif canonicalize_name(requirement.name) in pinned:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text
    assert {"train", "hub", "lips"} <= Requirement(extras["all"][0]).extras


# Distributions by the modules that they bring, where the names differ.
MODULES = {"PyYAML": "yaml"}
STANDARD = {*sys.stdlib_module_names, "avtlm", "preprocess", "demos"}


def unguarded(path: Path) -> set[str]:
    """Top packages that a file imports without saying which extra brings them: not within ``with needs(...)`` or a ``try``."""
    found: set[str] = set()

    def visit(node: ast.AST, guarded: bool) -> None:
        if isinstance(node, ast.Import):
            found.update(set() if guarded else {alias.name.split(".")[0] for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module and not guarded:
            found.add(node.module.split(".")[0])
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        needs = isinstance(node, ast.With) and any("needs(" in ast.unparse(item) for item in node.items)
        for child in ast.iter_child_nodes(node):
            visit(child, guarded or typing_only or needs or isinstance(node, ast.Try))

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found - STANDARD


# What is imported only behind a door that has tried the package before.
BEHIND = {"xformers": "avtlm/nn/attention.py", "cv2": "avtlm/lips/", "huggingface_hub": "avtlm/hub.py", "mediapipe": "avtlm/lips/"}
BEHIND |= {"espeakng_loader": "avtlm/units/grapheme_to_phoneme.py", "wandb": "avtlm/training/watching.py"}


def test_the_core_requires_what_it_imports_and_nothing_else() -> None:
    core = {MODULES.get(name, name) for name in (Requirement(text).name for text in metadata()["dependencies"])}
    used: dict[str, set[str]] = {}
    for path in sorted((ROOT / "avtlm").rglob("*.py")):
        for name in unguarded(path):
            used.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    assert core - used.keys() == set()
    wrong = {name: [place for place in places if not place.startswith(BEHIND.get(name, "-"))] for name, places in used.items()}
    assert {name: places for name, places in wrong.items() if name not in core and places} == {}


@pytest.mark.parametrize(("function", "package"), [("wer", "jiwer"), ("kmeans", "scikit-learn"), ("plots", "matplotlib")])
def test_what_training_needs_names_its_extra(function: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("jiwer", "sklearn.cluster", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    calls = {
        "wer": lambda: corpus_wer([("a", "b")]),
        "kmeans": lambda: kmeans.fit(np.zeros((4, 2), np.float32), kmeans.KMeansConfig(2)),
        "plots": lambda: wer_against_snr({"rates": {}}, "x.png"),
    }
    with pytest.raises(MissingExtra, match=rf"{package} is needed for .*; install it with: pip install 'avtlm\[train\]'"):
        calls[function]()


WITHOUT_EXTRAS = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
import numpy, avtlm
sound = numpy.random.default_rng(0).normal(0, 0.1, 16000)
pictures = numpy.random.default_rng(0).integers(0, 256, (25, 96, 96), dtype=numpy.uint8)
print([each.text for each in avtlm.transcribe([sound, pictures, avtlm.Clip(pictures, sound)], model="model", rate=16000)])
"""


def test_a_model_is_used_without_any_extra(tmp_path: Path) -> None:
    save_tiny_recognizer(tmp_path / "model")
    optional = {Requirement(text).name for group in metadata()["optional-dependencies"].values() for text in group} - {"avtlm"}
    names = {"scikit-learn": "sklearn", "opencv-contrib-python": "cv2", "flashlight-text": "flashlight"}
    packages = {names.get(name, name.replace("-", "_")) for name in optional} | {"torchvision", "einops", "PIL"}
    script = WITHOUT_EXTRAS.format(packages=sorted(packages))
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(ast.literal_eval(result.stdout)) == 3


# Of the standard library, what came after Python 3.10.
YOUNGER = {"tomllib", "asyncio.TaskGroup", "asyncio.timeout", "datetime.UTC", "enum.StrEnum", "enum.verify", "itertools.batched",
           "typing.LiteralString", "typing.Never", "typing.NotRequired", "typing.Required", "typing.Self", "typing.TypeVarTuple",
           "typing.Unpack", "typing.assert_never", "typing.assert_type", "typing.override", "typing.reveal_type", "contextlib.chdir",
           "hashlib.file_digest", "math.cbrt", "math.exp2", "operator.call", "pathlib.Path.walk", "wsgiref.types"}  # fmt: skip
BUILTINS = {"ExceptionGroup", "BaseExceptionGroup", "PythonFinalizationError"}


def test_the_sources_are_python_3_10() -> None:
    project = metadata()
    assert project["requires-python"] == ">=3.10,<3.13"
    assert all(f"Programming Language :: Python :: 3.{minor}" in project["classifiers"] for minor in (10, 11, 12))
    wrong = []
    for path in sorted(path for top in ("avtlm", "preprocess") for path in (ROOT / top).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
        for node in ast.walk(tree):
            names = [ast.unparse(node)] if isinstance(node, ast.Attribute) else [node.id] if isinstance(node, ast.Name) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names if name in YOUNGER | BUILTINS]
    assert wrong == []


COMPILE = "import sys\nfor path in sys.argv[1:]:\n    compile(open(path, encoding='utf-8').read(), path, 'exec')\nprint(len(sys.argv) - 1)"


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12"])
def test_every_source_compiles_where_that_python_is_installed(version: str) -> None:
    python = shutil.which(f"python{version}")
    command = [python or sys.executable, "-c", f"import sys; sys.exit(sys.version_info[:2] != {tuple(map(int, version.split('.')))})"]
    if python is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"Python {version} is not installed")
    paths = [str(path) for top in ("avtlm", "preprocess") for path in (ROOT / top).rglob("*.py")]
    result = subprocess.run([python, "-c", COMPILE, *paths], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, str(len(paths))), result.stderr


# The wheel ----------------------------------------------------------------------------------------------------------------------------


def built(*command: str, **environment: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in ("avtlm", "preprocess", "configs"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt"):
        shutil.copy(ROOT / name, folder / "source" / name)
    backend = folder / "backend"
    built(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(backend), "setuptools>=77")
    script = f"import os, setuptools.build_meta as backend\nos.chdir({str(folder / 'source')!r})\nbackend.build_sdist({str(folder)!r})"
    built(sys.executable, "-c", script, PYTHONPATH=str(backend))
    (archive,) = folder.glob("avtlm-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built from the source distribution, which therefore lacks nothing."""
    built(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(sdist.parent), str(sdist))
    (found,) = sdist.parent.glob("avtlm-*.whl")
    return found


@pytest.mark.slow
def test_the_source_distribution_has_the_configurations(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert configs | {"LICENSE", "README.md", "CHANGELOG.md", "constraints.txt", "pyproject.toml"} <= names


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        meta = next(name for name in files if name.endswith("METADATA"))
        text = archive.read(meta).decode()
        entries = archive.read(meta.replace("METADATA", "entry_points.txt")).decode()
    inside = (path for top in ("avtlm", "preprocess") for path in (ROOT / top).rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert {path.relative_to(ROOT).as_posix() for path in inside} <= files
    assert "avtlm/py.typed" in files
    assert {name.split("/")[0] for name in files} <= {"avtlm", "preprocess", meta.split("/")[0]}
    assert "License-Expression: Apache-2.0" in text
    assert "Provides-Extra: train" in text
    assert any(name.endswith("LICENSE") for name in files)
    assert "avtlm = avtlm.cli:main" in entries


SMOKE = """
import sys, numpy, avtlm
assert avtlm.__file__.startswith(sys.prefix), avtlm.__file__
model = avtlm.load("model")
sound = numpy.random.default_rng(0).normal(0, 0.1, 44100)
print(avtlm.transcribe(sound, model=model, rate=44100).text)
avtlm.save(model, "again", licence="mit")
"""


@pytest.mark.slow
def test_the_wheel_installed_in_a_new_environment_transcribes_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    """What it requires is lent from this environment by its path; avtlm itself is that of the wheel."""
    built(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    python = tmp_path / "venv" / "bin" / "python"
    built(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    save_tiny_recognizer(tmp_path / "model")
    write_wav(tmp_path / "clip.wav", made_media.chirps(1.0))
    avtlm = str(tmp_path / "venv" / "bin" / "avtlm")
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    for command in ([str(python), "-c", SMOKE], [avtlm, "transcribe", "clip.wav", "--modality", "a", "--model", "again"]):
        result = subprocess.run(command, **run)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip()
    assert "transcribe" in subprocess.run([avtlm, "--help"], **run).stdout
