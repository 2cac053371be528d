"""Seeing inside an encoder: points are what the encoder says, and the count of agreeing neighbours is right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from avtlm import systems
from avtlm.cli import main
from avtlm.data.dataset import ClipDataset, Source, collate
from avtlm.data.manifest import Utterance, read_manifest
from avtlm.evaluation.representations import Points, chance, collect, layout, phones_of, same_phone, visualize
from tests.made_corpus import MadeCorpus, make_corpus
from tests.made_model import save_corpus, save_tiny_recognizer
from tests.training.made_runs import pretraining, run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


@pytest.fixture(scope="module")
def model(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(pretraining(corpus, tmp_path_factory.mktemp("run"), steps=3))


def test_points_are_the_encoders_frames_averaged_over_each_phone(corpus: MadeCorpus, model: Path) -> None:
    points = collect(corpus.clips, model, layer=1, split="train", limit=5)
    assert set(points.inputs) == {"av", "a", "v", "text"}
    encoder, form = systems.load_encoder(model)
    dataset = ClipDataset(Source(str(corpus.clips), "audio_video"), inputs=form, training=False)
    name = points.clips[0]
    index = next(i for i, row in enumerate(dataset.manifest) if row.id == name)
    with torch.inference_mode():
        features, _ = encoder.encode(collate([dataset.item(index)], "audio_video").only("a"), output_layer=1)  # type: ignore[operator]
    own = [i for i in range(len(points)) if points.clips[i] == name and points.inputs[i] == "a"]
    phones = phones_of(dataset.manifest[index])
    assert [points.labels[i] for i in own] == [phone for phone, _, _ in phones]
    for place, i in enumerate(own):
        wanted = features[0, 5 * place : 5 * place + 5].mean(0).numpy()
        np.testing.assert_allclose(points.features[i], wanted, rtol=1e-4, atol=1e-5)


def test_every_clip_gives_as_many_points_of_each_input(corpus: MadeCorpus, model: Path) -> None:
    points = collect(corpus.clips, model, split=None, limit=6, inputs=["v", "text"])
    counts = {kind: points.inputs.count(kind) for kind in ("v", "text")}
    assert counts["v"] == counts["text"] > 0
    assert len(set(points.clips)) == 6


def made_points(noise: float) -> Points:
    """Two inputs whose points of one phone lie together, up to noise."""
    rng = np.random.default_rng(0)
    directions = np.eye(4, dtype=np.float32)
    features, inputs, labels, clips = [], [], [], []
    for clip in range(6):
        for kind in ("a", "v"):
            for phone in range(4):
                features.append(directions[phone] + noise * rng.normal(size=4))
                inputs.append(kind)
                labels.append("ptks"[phone])
                clips.append(f"c{clip}")
    return Points(np.stack(features).astype(np.float32), tuple(inputs), tuple(labels), tuple(clips))


def test_neighbours_agree_where_content_lies_together_and_not_where_it_is_noise() -> None:
    assert same_phone(made_points(0.05)) == {"a>v": 1.0, "v>a": 1.0}
    assert all(share < 0.6 for share in same_phone(made_points(30.0)).values())
    assert chance(made_points(0.0)) == 0.25


def test_a_clip_is_no_neighbour_of_itself() -> None:
    features = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]], dtype=np.float32)
    points = Points(features, ("a", "a", "v", "v"), ("p", "t", "p", "t"), ("one", "one", "one", "two"))
    # Of clip one only v's t in clip two may be looked up by a, so p finds t.
    assert same_phone(points)["a>v"] == 0.5


def test_the_layout_keeps_clusters_apart_and_repeats_itself() -> None:
    points = made_points(0.02)
    places = layout(points.features, seed=3)
    assert np.array_equal(places, layout(points.features, seed=3))
    found = KMeans(4, n_init=10, random_state=0).fit_predict(places)
    assert len({(label, cluster) for label, cluster in zip(points.labels, found, strict=True)}) == 4


def test_the_figure_and_its_numbers_are_written(corpus: MadeCorpus, model: Path, tmp_path: Path) -> None:
    numbers = visualize(corpus.clips, model, tmp_path / "map.png", split=None, limit=8)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "map.json").read_text()) == numbers
    assert numbers["clips"] == 8
    assert set(numbers["same_phone"]) == {f"{a}>{b}" for a in ("av", "a", "v", "text") for b in ("av", "a", "v", "text") if a != b}


def test_without_timed_phones_frames_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, folder = save_corpus(tmp_path / "corpus"), save_tiny_recognizer(tmp_path / "model")
    code = main(["visualize", str(manifest), "--model", str(folder), "--out", str(tmp_path / "map.png")])
    assert code == 0
    assert "no timed phones" in capsys.readouterr().out
    assert json.loads((tmp_path / "map.json").read_text())["points"] == 3 * sum(
        len(range(2, row.video_frames, 5)) for row in read_manifest(manifest).split("test")
    )


def test_phones_with_a_colon_in_their_name_are_read_whole_and_untimed_ones_left_alone() -> None:
    assert phones_of(Utterance("u", phones="aː:0.00:0.20 ::0.20:0.30")) == [("aː", 0.0, 0.2), (":", 0.2, 0.3)]
    assert phones_of(Utterance("u", phones="a b")) == []
    assert phones_of(Utterance("u")) == []


def test_inputs_that_are_not_there_are_named(corpus: MadeCorpus, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'lips' is unknown"):
        collect(corpus.clips, model, inputs=["lips"], split=None)
    with pytest.raises(ValueError, match="v cannot be looked at, since not all clips have what it needs"):
        collect(corpus.sound, model, inputs=["v"], split=None)
    with pytest.raises(ValueError, match="no phone table"):
        collect(corpus.clips, save_tiny_recognizer(tmp_path / "model"), inputs=["text"], split=None)
