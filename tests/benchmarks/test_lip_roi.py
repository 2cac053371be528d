"""The benchmark of lip crops: its measure of displacement, and that every pipeline makes a crop of every frame."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avtlm.lips.align import mean_face
from avtlm.lips.tracking import follow_face
from benchmarks.lip_quality import compare, summary
from benchmarks.lip_roi import STRIDES, main
from tests.lips.moving_faces import Knowing, moving
from tests.made_media import talking, tone, write_media


def test_displacement_is_told_in_pixels_of_the_crop() -> None:
    pictures, faces = moving(np.zeros(16))
    track = follow_face(pictures, Knowing(list(faces), 1), "clip.mp4")
    same = summary([compare(pictures, track, track)])
    assert all(value == 0 for values in same.values() for value in values.values())
    eyes = float(np.linalg.norm(faces[0, 45] - faces[0, 36]))
    scale = float(np.linalg.norm(mean_face()[45] - mean_face()[36])) / eyes
    moved = replace(track, points=track.points + np.array([4.0, 0.0]))
    apart = summary([compare(pictures, track, moved)])
    assert apart["centre"]["mean"] == pytest.approx(4.0 * scale, abs=0.05)
    assert apart["scale"]["largest"] < 1e-6
    assert apart["grey"]["mean"] > 1
    larger = replace(track, points=(track.points - (80, 80)) * 1.1 + (80, 80))
    assert summary([compare(pictures, track, larger)])["scale"]["mean"] == pytest.approx(100 - 100 / 1.1, abs=0.01)


def test_every_pipeline_crops_every_frame(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("a", "b"):
        write_media(tmp_path / "clips" / f"{name}.mp4", talking(0.4), audio=tone(0.4))
    files = [str(tmp_path / name) for name in ("speed.json", "profile.json")]
    assert main([str(tmp_path / "clips"), "--json", files[0], "--profile", files[1]]) == 0
    (speed,) = json.loads(Path(files[0]).read_text())["sets"]
    assert {name: figures["frames"] for name, figures in speed["speeds"].items()} == {
        "ours": 20,
        "auto_avsr": 20,
        "AV-HuBERT": 20,
        "ours, to shards": 10,
    }
    (parts,) = json.loads(Path(files[1]).read_text())["sets"]
    assert sum(step["share"] for step in parts["steps"].values()) == pytest.approx(1, abs=0.01)
    assert list(parts["strides"]) == [str(stride) for stride in STRIDES]
    assert parts["strides"]["1"]["a_look_in"] == 1
