"""A reader sees the old file or the new one; seeds depend on what they are for; errors name the extra to install."""

import pickle
from pathlib import Path

import pytest

from avtlm.data.seeds import seed_for
from avtlm.errors import MissingExtra
from avtlm.files import atomic_path, write_text


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("x")
        assert (temporary.parent, temporary.suffix) == (target.parent, ".txt")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_seeds_are_stable_and_differ() -> None:
    assert seed_for(0, "noise", "clip 7") == seed_for(0, "noise", "clip 7")
    assert seed_for("a", "b") != seed_for("ab")
    assert len({seed_for(0, "item", index) for index in range(1000)}) == 1000
    assert all(0 <= seed_for(index) < 2**63 for index in range(100))


def test_a_seed_never_changes_between_versions() -> None:
    assert seed_for(0, "noise", "clip") == 1177117370531746621


def test_a_missing_package_names_its_extra() -> None:
    error = MissingExtra("lips", "mediapipe", "finding faces")
    assert str(error) == "mediapipe is needed for finding faces; install it with: pip install 'avtlm[lips]'."
    assert isinstance(error, ImportError)


def test_a_missing_package_survives_the_way_back_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(MissingExtra("lips", "mediapipe", "finding faces")))
    assert (error.extra, str(error)[:9]) == ("lips", "mediapipe")
