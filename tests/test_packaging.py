"""The project can be built, says what it needs, and its documents agree with its code."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from avtlm.cli import _parser
from avtlm.doctor import EXTRAS

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


def test_every_requirement_is_pinned_for_the_tests() -> None:
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    project = "\n".join(section("project"))
    needed = names(project.split("dependencies = [", 1)[1])
    for line in section("project.optional-dependencies"):
        name, _, packages = line.partition(" = ")
        if packages and name in ("lips", "synthetic", "demo", "shards", "tensorboard", "wandb", "dev", "docs"):
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("avtlm", "preprocess"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(folder / "source")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (built,) = folder.glob("avtlm-*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        meta = next(name for name in files if name.endswith("METADATA"))
        text = archive.read(meta).decode()
        entries = archive.read(meta.replace("METADATA", "entry_points.txt")).decode()
    expected = {path.relative_to(ROOT).as_posix() for top in ("avtlm", "preprocess") for path in (ROOT / top).rglob("*.py")}
    assert expected <= files
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "avtlm").rglob("*.npz")} <= files
    assert {name.split("/")[0] for name in files} <= {"avtlm", "preprocess", meta.split("/")[0]}
    assert "License-Expression: Apache-2.0" in text
    assert any(name.endswith("LICENSE") for name in files)
    assert "avtlm = avtlm.cli:main" in entries


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    """The package of the wheel, found before the repository, shows its help."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "import sys; sys.path.insert(0, 'site')\nimport avtlm.cli\nassert 'site' in avtlm.__file__\nsys.exit(avtlm.cli.main(['--help']))"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "transcribe" in result.stdout
