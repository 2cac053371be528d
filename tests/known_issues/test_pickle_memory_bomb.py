"""A pickle of a few bytes that remembers a value under a huge number made the unpickler in C build a table of 32 GB: it hung, or took all
memory. Landmark files and official checkpoints are pickles."""

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from avtlm.convert.pickles import TorchFile
from avtlm.lips.landmarks import read_landmarks

BOMB = b"\x80\x02]r\xff\xff\xff\x7f."  # an empty list, remembered as number 2,147,483,647


@pytest.mark.parametrize("place", ["landmarks", "zip", "legacy"])
def test_a_huge_number_in_a_pickle_takes_neither_time_nor_memory(place: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    if place == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", BOMB)
    else:
        path.write_bytes(BOMB)
    start = time.monotonic()
    if place == "zip":
        assert TorchFile(path).content == []
    else:
        with pytest.raises(ValueError, match=r"a\.pkl"):
            (read_landmarks if place == "landmarks" else TorchFile)(path)
    assert time.monotonic() - start < 10


def test_landmarks_of_both_versions_of_numpy_are_read(tmp_path: Path) -> None:
    import pickle

    points = np.random.default_rng(0).uniform(0, 96, (2, 68, 2))
    for core in (b"numpy.core", b"numpy._core"):
        content = (
            pickle.dumps([points[0], None, points[1]], protocol=3).replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core", core)
        )
        (tmp_path / "a.pkl").write_bytes(content)
        if core == b"numpy._core" and int(np.__version__.split(".")[0]) < 2:
            continue
        found = read_landmarks(tmp_path / "a.pkl")
        assert np.array_equal(found[[0, 2]], points)
        assert np.isnan(found[1]).all()
