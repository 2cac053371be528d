"""Atomic writes: the old file or the new one, never half of one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from avtlm.data.seeds import seed_for
from avtlm.files import atomic_path, write_text


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        assert not target.exists()
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["file.txt"]


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError):
        _fail_halfway(target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def _fail_halfway(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError


def test_a_kill_in_the_middle_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    code = (
        "import os, signal, sys\nfrom avtlm.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n    temporary.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_seeds_are_stable_and_depend_on_every_part() -> None:
    assert seed_for(1, "item", 0, "a") == seed_for(1, "item", 0, "a")
    assert len({seed_for(1, "item", 0, "a"), seed_for(1, "item", 0, "b"), seed_for(2, "item", 0, "a"), seed_for(1, "item", "0a")}) == 4
    assert seed_for("a", "bc") != seed_for("ab", "c")
    assert 0 <= seed_for("x") < 2**63
    assert seed_for("quickstart", 1) == 8537606999923418570
