"""The notebooks run from the first cell to the last, on what they make themselves, and come out as their text says."""

import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

matplotlib = pytest.importorskip("matplotlib")
FOLDER = Path(__file__).resolve().parents[2] / "demos" / "notebooks"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder that the notebooks share, so that their model is trained once."""
    return tmp_path_factory.mktemp("notebooks")


def run(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    """The names that a notebook leaves, and what it prints."""
    matplotlib.use("agg")
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(os.getcwd())  # so that what a cell appends is forgotten
    names: dict[str, Any] = {"__name__": "notebook"}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for number, cell in enumerate(json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{name}.ipynb, cell {number}", "exec"), names)
    return names, out.getvalue()


def test_the_notebook_that_transcribes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, printed = run("transcribe", place, monkeypatch)
    assert printed.startswith("ab cd fe\n")
    assert [word.text for word in names["found"].words] == ["ab", "cd", "fe"]
    for word, start in zip(names["found"].words, (0.0, 0.6, 1.2)):
        assert word.start == pytest.approx(start, abs=0.25)
    assert names["seen"][-1].text == names["text"]
    assert names["heard"][-1].text != names["text"]
    assert "-->" in printed


def test_the_notebook_that_fine_tunes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, printed = run("finetune", place, monkeypatch)
    assert names["after"] < 0.7 * names["before"]
    assert "license: cc0-1.0" in printed
    assert all(bool((value == names["model"].state_dict()[name]).all()) for name, value in names["again"].state_dict().items())


def test_the_notebook_that_looks_inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, printed = run("look_inside", place, monkeypatch)
    assert names["weights"].sum(-1).allclose(names["weights"].new_ones(()), atol=1e-5)
    assert names["purity"] > 0.6
    assert len(re.findall(r"^ *\d\.\d\d - ", printed, re.MULTILINE)) == len(names["tokens"])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_what_a_run_leaves_in_it(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in found["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert (found["nbformat"], found["cells"][0]["cell_type"]) == (4, "markdown")
    assert len({cell["id"] for cell in found["cells"]}) == len(found["cells"])
