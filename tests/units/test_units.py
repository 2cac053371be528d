"""Units: clustering, label files, features of a trained model, and units for text."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import Manifest, Utterance, read_manifest, write_manifest
from avtlm.units.discovery import units
from avtlm.units.features import mfcc, mfcc_features, model_features
from avtlm.units.kmeans import KMeans, KMeansConfig, fit
from avtlm.units.labels import read_labels, write_labels
from avtlm.units.text_to_units import frame_phones, label_text, learn, timed_phones
from tests.made_corpus import FRAMES, LETTERS, MadeCorpus, make_corpus
from tests.units.made_encoder import save_encoder

SMALL = KMeansConfig(clusters=6, restarts=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("model") / "model")


# Clusters -------------------------------------------------------------------------------------------------------------------------------


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres, which = 10 * rng.normal(size=(6, 4)), rng.integers(0, 6, 600)
    return (centres[which] + rng.normal(0, 0.1, (600, 4))).astype(np.float32), which


def test_features_of_the_first_units_are_four_normalised_mfcc_frames_of_the_same_40_ms() -> None:
    wave = np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16)
    frames = mfcc(wave)
    assert frames.shape == (98, 39)
    assert mfcc(wave[:399]).shape == (0, 39)
    normed = (frames - frames.mean(0)) / (frames.std(0, unbiased=False) + 1e-5)
    stacked = mfcc_features(wave)
    assert stacked.shape == (25, 156)
    np.testing.assert_array_equal(stacked[:24], normed[:96].reshape(24, 156).numpy())
    assert not stacked[24, 78:].any()
    assert mfcc_features(wave[:100], frames=1).shape == (1, 156)


def test_well_separated_clusters_are_found_and_named_alike_from_a_seed() -> None:
    features, which = blobs()
    first, again = fit(features, SMALL), fit(features, SMALL)
    assert np.array_equal(first.centres, again.centres)
    labels = first.assign(features)
    assert len({(int(a), int(b)) for a, b in zip(labels, which, strict=True)}) == 6
    assert first.inertia(features) < 0.1


def test_assignment_is_to_the_nearest_centre() -> None:
    features, _ = blobs(1)
    clusters = fit(features, SMALL)
    distance = ((features[:, None] - clusters.centres[None]) ** 2).sum(-1)
    assert np.array_equal(clusters.assign(features), distance.argmin(1))
    assert clusters.assign(features[:0]).shape == (0,)


def test_clusters_survive_a_file(tmp_path: Path) -> None:
    clusters = fit(blobs()[0], SMALL)
    clusters.save(tmp_path / "kmeans.safetensors")
    assert np.array_equal(KMeans.load(tmp_path / "kmeans.safetensors").centres, clusters.centres)


def test_too_little_or_broken_data_is_refused() -> None:
    features, _ = blobs()
    with pytest.raises(ValueError, match="3 frames for 6 clusters"):
        fit(features[:3], SMALL)
    features[5, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit(features, SMALL)
    with pytest.raises(ValueError, match="clusters: 1"):
        KMeansConfig(clusters=1)


# Label files ----------------------------------------------------------------------------------------------------------------------------


def test_labels_survive_a_file(tmp_path: Path) -> None:
    rows = {"one": np.array([3, 1, 4], np.int32), "speaker/clip 2": np.array([5], np.int32), "none": np.zeros(0, np.int32)}
    write_labels(tmp_path / "x.units", rows)
    read = read_labels(tmp_path / "x.units")
    assert list(read) == list(rows)
    assert all(np.array_equal(read[name], rows[name]) for name in rows)


@pytest.mark.parametrize("line", ["no tab here", "id\t1 2 three", ""])
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.units"
    path.write_text(f"a\t1 2\n{line}\nb\t1\n")
    with pytest.raises(ValueError, match=r"x\.units, line 2: expected an id, a tab, and unit numbers"):
        read_labels(path)


def test_labels_are_checked_against_a_manifest(tmp_path: Path) -> None:
    row = Utterance("u", audio="u.wav", audio_samples=16000)
    manifest = Manifest(tmp_path, (row,))
    path = tmp_path / "x.units"
    for length, good in ((22, True), (25, True), (28, True), (21, False), (29, False)):
        write_labels(path, {"u": np.zeros(length, int)})
        if good:
            read_labels(path).check(manifest)
        else:
            with pytest.raises(ValueError, match=rf"x\.units: {length} labels for utterance 'u' of 25 frames"):
                read_labels(path).check(manifest)
    with pytest.raises(ValueError, match="no labels for utterance 'v'"):
        read_labels(path).check(Manifest(tmp_path, (replace(row, id="v"),)))


# Labelling ------------------------------------------------------------------------------------------------------------------------------


def test_mfcc_are_at_25_hertz_and_match_the_picture() -> None:
    wave = np.random.default_rng(0).integers(-3000, 3000, 16000).astype(np.int16)
    assert mfcc_features(wave).shape == (25, 156)
    assert mfcc_features(wave, 27).shape == (27, 156)
    assert mfcc_features(wave[:100]).shape[1] == 156
    assert np.isfinite(mfcc_features(np.zeros(8000, np.int16))).all()


def test_units_of_the_sound_tell_the_letters_apart(corpus: MadeCorpus, tmp_path: Path) -> None:
    report = units(corpus.clips, tmp_path, config=replace(SMALL, clusters=18))
    labels, truth = read_labels(report.labels), read_labels(corpus.units)
    rows = read_manifest(corpus.clips)
    labels.check(rows)
    assert report.utterances == len(rows)
    assert report.units_used == 18
    counts = np.zeros((18, 6))
    for row in rows:
        for unit, letter in zip(labels[row.id], truth[row.id], strict=True):
            counts[unit, letter] += 1
    purity = counts.max(1).sum() / counts.sum()
    assert purity > 0.8  # frames at a letter's edge may go either way
    assert report.quality is not None
    assert report.quality.phone_purity == pytest.approx(purity)  # the phones of this corpus are its letters
    assert report.quality.frames == report.frames
    written = json.loads((tmp_path / "manifest.report.json").read_text())
    assert written["quality"]["pnmi"] == report.quality.pnmi
    assert (written["units"], written["rate"], written["labels"]) == (18, 25.0, "manifest.units")


def test_a_second_corpus_shares_the_inventory_of_the_first(corpus: MadeCorpus, tmp_path: Path) -> None:
    first = units(corpus.clips, tmp_path / "one", config=SMALL)
    second = units(corpus.sound, tmp_path / "two", clusters_from=first.clusters)
    assert np.array_equal(KMeans.load(second.clusters).centres, KMeans.load(first.clusters).centres)
    assert len(read_labels(second.labels)) == len(read_manifest(corpus.sound))


def test_labelling_is_the_same_every_time(corpus: MadeCorpus, tmp_path: Path) -> None:
    paths = [units(corpus.clips, tmp_path / name, config=SMALL, fraction=0.5).labels for name in ("a", "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(("modality", "manifest"), [("av", "clips"), ("a", "clips"), ("v", "clips"), ("a", "sound")])
def test_features_of_a_model_have_one_vector_per_frame_whatever_the_batches(
    corpus: MadeCorpus, model: Path, modality: str, manifest: str
) -> None:
    rows = read_manifest(getattr(corpus, manifest))
    together = dict(model_features(model, rows, 1, modality))
    alone = dict(model_features(model, rows, 1, modality, max_frames=1))
    assert set(together) == {row.id for row in rows}
    for row in rows:
        assert together[row.id].shape == (FRAMES * len(row.transcript or ""), 16)
        np.testing.assert_allclose(together[row.id], alone[row.id], atol=2e-5)


def test_units_of_a_models_layer_are_written(corpus: MadeCorpus, model: Path, tmp_path: Path) -> None:
    report = units(corpus.clips, tmp_path, model, 2, SMALL, splits=["train"])
    assert set(read_labels(report.labels)) == {row.id for row in read_manifest(corpus.clips) if row.split == "train"}
    assert f'"features": "{model}"' in (tmp_path / "kmeans.json").read_text()


def test_a_model_without_a_layer_and_an_empty_split_are_refused(corpus: MadeCorpus, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a model and a layer belong together"):
        units(corpus.clips, tmp_path, model)
    with pytest.raises(ValueError, match="no utterance of split dev"):
        units(corpus.clips, tmp_path, splits=["dev"])
    with pytest.raises(ValueError, match="output_layer: 3 is not between 1 and 2"):
        units(corpus.clips, tmp_path, model, 3, SMALL)
    assert not list(tmp_path.iterdir())


# Text -----------------------------------------------------------------------------------------------------------------------------------


def test_frames_know_their_phone_and_which_third_of_it() -> None:
    row = Utterance("u", phones="a:0.00:0.12 b:0.16:0.28")
    assert frame_phones(row) == [("a", 0), ("a", 1), ("a", 2), ("", 0), ("b", 0), ("b", 1), ("b", 2)]


def test_text_gets_the_units_its_phones_had_in_speech(corpus: MadeCorpus, tmp_path: Path) -> None:
    out = label_text(corpus.sound, corpus.units, corpus.text, tmp_path / "text.units")
    made, truth = read_labels(out), read_labels(corpus.units)
    assert len(made) == len(read_manifest(corpus.text))
    for name in made:
        assert np.array_equal(made[name], truth[name])
    assert len(set(np.concatenate(list(made.values())))) == len(LETTERS)


def test_a_phone_never_heard_gets_the_most_frequent_unit(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, (Utterance("u", phones="a:0:0.2"),))
    write_labels(tmp_path / "x.units", {"u": np.array([7, 7, 7, 7, 2])})
    generator = learn(manifest, read_labels(tmp_path / "x.units"))
    assert generator(Utterance("v", phones="zz:0:0.08")).tolist() == [7, 7]


@pytest.mark.parametrize("phones", [None, "", "a b c", "a:x:y"])
def test_phones_without_times_are_refused_by_utterance(phones: str | None) -> None:
    with pytest.raises(ValueError, match="utterance 'u' has no timed phones"):
        timed_phones(Utterance("u", phones=phones))


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.jsonl", Manifest(tmp_path, (Utterance("u", transcript="a"),)))
    write_labels(tmp_path / "x.units", {"u": np.zeros(3, int)})
    with pytest.raises(ValueError, match="no utterance has both unit labels and timed phones"):
        learn(read_manifest(tmp_path / "manifest.jsonl"), read_labels(tmp_path / "x.units"))
