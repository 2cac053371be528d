"""Imports run one way (CONTRIBUTING.md), and importing the package or its command line loads nothing heavy."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for top in ("avtlm", "preprocess", "demos", "benchmarks") for path in (ROOT / top).rglob("*.py"))

# What each room must not import. Rooms are the folders and single files of avtlm; "systems.*" is any one system, but not the whole room.
OUTER = ("training", "decoding", "evaluation", "transcribe", "speaking", "speech_writer", "recognizer", "cli", "doctor", "info",
         "arrays", "hub", "models", "verbs")  # fmt: skip
FORBIDDEN = {
    "nn": ("frontends", "objectives", "systems", "data", "lips", "text", "units", *OUTER),
    "frontends": ("objectives", "systems", "lips", "units", *OUTER),
    "objectives": ("frontends", "systems", "data", "lips", "units", *OUTER),
    "text": ("nn", "frontends", "objectives", "systems", "data", "lips", "units", *OUTER),
    "lips": ("nn", "frontends", "objectives", "systems", "units", "text", *OUTER),
    "data": ("objectives", "systems", "lips", *OUTER),
    "systems": ("lips", *(room for room in OUTER if room != "recognizer")),  # avtlm.systems.load builds a recogniser around a system
    "training": ("systems.*", "lips", "transcribe", "cli", "doctor", "info"),
    "decoding": ("systems", "frontends", "lips", "training", "evaluation", "transcribe", "cli", "doctor", "info"),
    "evaluation": ("systems.*", "cli", "doctor", "info"),
}
# A module that any room may use: it draws bars for long jobs.
EVERYWHERE = ("avtlm.training.progress",)
# Where a package may be imported. The photographs of the synthetic corpus need all 468 points of the mesh, of which providers give 68.
DOORS = {
    "xformers": ("avtlm/nn/attention.py",),
    "mediapipe": ("avtlm/lips/landmarks.py", "preprocess/synthesis/photo.py"),
    "gradio": ("demos/",),
    "yaml": ("avtlm/plain_yaml.py",),
    "ray": ("preprocess/cluster.py",),
}
HEAVY = ("mediapipe", "cv2", "gradio", "torchvision", "torchaudio", "matplotlib", "sklearn", "jiwer", "av", "pandas", "jax", "tensorboard")


def imported(path: Path) -> Iterator[str]:
    """Every module named in an import statement, also inside functions; names from a package count as modules of it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if len(parts) > 1 else parts[0]


def breaks(name: str, forbidden: str) -> bool:
    parts = name.split(".")
    if parts[0] != "avtlm" or len(parts) < 2 or parts[1] != forbidden.removesuffix(".*"):
        return False
    if ".".join(parts[:3]) in EVERYWHERE:
        return False
    if forbidden.endswith(".*"):  # a single system is a module of the room, which a name like avtlm.systems.load is not
        return len(parts) > 2 and (ROOT / "avtlm" / parts[1] / f"{parts[2]}.py").exists()
    return True


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    names = list(imported(path))
    inside = path.is_relative_to(ROOT / "avtlm")
    wrong = [name for name in names for forbidden in FORBIDDEN.get(room(path), ()) if inside and breaks(name, forbidden)]
    if inside or path.is_relative_to(ROOT / "preprocess"):
        wrong += [name for name in names if name.split(".")[0] in ("demos", "benchmarks", "tests") or name.startswith("avtlm.cli")]
        if room(path) not in ("cli", "verbs"):
            wrong += [name for name in names if name.startswith("avtlm.verbs")]
    if inside:
        wrong += [name for name in names if name.split(".")[0] == "preprocess"]
    assert not wrong, f"{path.relative_to(ROOT)} must not import {sorted(set(wrong))}"


@pytest.mark.parametrize(("package", "doors"), DOORS.items())
def test_a_package_behind_a_door_is_imported_only_there(package: str, doors: tuple[str, ...]) -> None:
    users = [path.relative_to(ROOT).as_posix() for path in SOURCES if any(name.split(".")[0] == package for name in imported(path))]
    assert [user for user in users if not user.startswith((*doors, "benchmarks/"))] == []


def test_only_one_file_calls_attention_kernels() -> None:
    users = [path for path in SOURCES if "scaled_dot_product_attention(" in path.read_text() and "benchmarks" not in path.parts]
    assert [path.relative_to(ROOT).as_posix() for path in users] == ["avtlm/nn/attention.py"]


def loaded(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(result.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded("import avtlm").isdisjoint(HEAVY)


def test_the_command_line_shows_its_help_without_torch() -> None:
    modules = loaded("import contextlib, io, avtlm.cli\nwith contextlib.redirect_stdout(io.StringIO()):\n    avtlm.cli.main([])")
    assert modules.isdisjoint({*HEAVY, "torch", "numpy", "rich"})


def test_no_package_imports_an_optional_one_at_its_top() -> None:
    modules = ", ".join(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if path.is_relative_to(ROOT / "avtlm") and path.stem != "__init__"
    )
    assert loaded(f"import {modules}").isdisjoint({"mediapipe", "cv2", "gradio", "espeakng_loader", "tensorboard", "xformers"})


def test_file_names_are_nouns_that_say_something() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "base", "manager", "common", "tools"}
    assert [str(path) for path in SOURCES if path.stem in vague or path.parent.name in vague] == []


def test_long_files_give_a_reason() -> None:
    long = [path for path in SOURCES if len(path.read_text().splitlines()) > 400]
    silent = [path for path in long if "lines" not in (ast.get_docstring(ast.parse(path.read_text())) or "")]
    assert silent == [], "over 400 lines: split it, or say in the docstring at the top why these lines belong together"
