"""The tables of noises and ratios, and of corrupted pictures: every cell is that of an evaluation in it alone, and means are means."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.data.media import write_wav
from avtlm.evaluation import evaluate as module
from avtlm.evaluation.corruption_plot import wer_against_strength
from avtlm.evaluation.evaluate import Evaluation, evaluate
from avtlm.evaluation.plots import wer_by_noise
from avtlm.evaluation.robustness import mean_of_noises, means_over_ratios
from avtlm.nn.transducer import TransducerConfig
from avtlm.nn.transformer import DecoderConfig
from avtlm.recognizer import Recognizer
from tests.made_model import save_corpus, tiny_recognizer

KINDS = ("babble", "music", "white")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return tiny_recognizer()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of babble and four of music, in lists for the split test."""
    folder = tmp_path_factory.mktemp("noise")
    for kind, count in (("babble", 2), ("music", 4)):
        for number in range(count):
            wave = np.random.default_rng([number, count]).normal(0, 3000, 9000).astype(np.int16)
            write_wav(folder / kind / f"{number}.wav", wave)
        (folder / kind / "test.tsv").write_text("".join(f"{number}.wav\n" for number in range(count)))
    return folder


@pytest.fixture(scope="module")
def report(corpus: Path, noises: Path, recognizer: Recognizer) -> Evaluation:
    return evaluate(corpus, recognizer, ["a", "v", "av"], snrs=[5, -10], noise=KINDS, noise_dir=noises)


def test_every_kind_of_noise_has_the_cells_of_an_evaluation_in_it_alone(
    corpus: Path, noises: Path, recognizer: Recognizer, report: Evaluation
) -> None:
    together = report.to_json()
    assert together["noise"] == list(KINDS)
    for kind in KINDS:
        alone = evaluate(corpus, recognizer, ["a", "v", "av"], snrs=[5, -10], noise=kind, noise_dir=noises).to_json()
        assert alone["noise"] == kind
        assert together["by_noise"][kind] == {"wer": alone["wer"], "interval_95": alone["interval_95"]}
    texts = {(c.noise, c.snr): c.texts for c in report.conditions if c.modality == "a"}
    assert len(texts) == 1 + 3 * 2
    assert texts["babble", -10] != texts["music", -10]
    video = [condition.texts for condition in report.conditions if condition.modality == "v"]
    assert all(found == video[0] for found in video)


def test_noise_from_lists_depends_on_the_seed_and_not_on_batches_or_the_limit(
    corpus: Path, noises: Path, recognizer: Recognizer, report: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_FRAMES", 1)
    again = evaluate(corpus, recognizer, ["a", "v", "av"], snrs=[5, -10], noise=KINDS, noise_dir=noises)
    assert [condition.texts for condition in again.conditions] == [condition.texts for condition in report.conditions]
    few = evaluate(corpus, recognizer, ["a"], snrs=[-10], noise="music", noise_dir=noises, limit=2).conditions[1].texts
    whole = next(c.texts for c in report.conditions if (c.modality, c.noise, c.snr) == ("a", "music", -10))
    assert few == {name: whole[name] for name in few}
    other = evaluate(corpus, recognizer, ["a"], snrs=[-10], noise="music", noise_dir=noises, seed=3).conditions[1].texts
    assert other != whole


def test_means_are_over_kinds_and_over_ratios() -> None:
    one, two = {"a": {"clean": 5.0, "0": 20.0, "-5": 40.0}}, {"a": {"clean": 5.0, "0": 30.0, "-5": 80.0}}
    assert mean_of_noises({"x": one, "y": two}) == {"a": {"clean": 5.0, "0": 25.0, "-5": 60.0}}
    assert means_over_ratios({"x": {"wer": one}, "y": {"wer": two}}) == {"x": {"a": 30.0}, "y": {"a": 55.0}, "all": {"a": 42.5}}


def test_the_table_has_a_row_for_every_input_and_noise_and_their_means(report: Evaluation) -> None:
    lines = report.table().splitlines()
    cells = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in lines if "│" in line]
    assert [row[:2] for row in cells if row[0] == "audio"] == [["audio", name] for name in (*KINDS, "mean")]
    assert [row[:2] for row in cells if row[0] == "video"] == [["video", "any"]]
    values = report.to_json()
    mean = next(row for row in cells if row[:2] == ["audio-visual", "mean"])
    assert mean[2:] == [f"{values['wer']['av'][name]:.1f}" for name in ("clean", "5", "-10")] + [f"{values['mean']['all']['av']:.1f}"]
    assert json.loads(json.dumps(values)) == values


def test_the_figure_has_a_panel_for_every_noise_and_is_the_same_for_the_same_report(report: Evaluation, tmp_path: Path) -> None:
    values = report.to_json()
    for name in ("one.png", "two.png"):
        wer_by_noise(values, tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one.startswith(b"\x89PNG")
    assert hashlib.sha256(one).digest() == hashlib.sha256(two).digest()
    with pytest.raises(ValueError, match="draw it with wer_against_snr"):
        wer_by_noise({"wer": values["wer"]}, tmp_path / "none.png")


def test_other_speakers_lend_their_voices_where_the_split_has_one(corpus: Path, recognizer: Recognizer, tmp_path: Path) -> None:
    manifest = read_manifest(corpus)
    rows = [row for row in manifest if row.speaker == "s0"] + [row for row in manifest if row.split == "train"]
    write_manifest(tmp_path / "two.jsonl", Manifest(manifest.root, tuple(rows)))
    clean, noisy = evaluate(tmp_path / "two.jsonl", recognizer, ["a"], snrs=[-10], noise=["speech"]).conditions
    assert clean.texts != noisy.texts
    write_manifest(tmp_path / "one.jsonl", Manifest(manifest.root, tuple(row for row in rows if row.speaker == "s0")))
    with pytest.raises(ValueError, match="babble is made of other speakers, and there is one only"):
        evaluate(tmp_path / "one.jsonl", recognizer, ["a"], snrs=[-10])


@pytest.mark.parametrize(
    ("noise", "folder", "reason"),
    [
        ("music", False, "'music' is neither babble, speech, white nor a sound file that exists"),
        ("/none/a.wav", False, "nor a sound file that exists"),
        ("speech", True, r"speech/test.tsv does not exist \(it has lists of babble, music\)"),
    ],
)
def test_noise_that_cannot_be_made_is_refused(
    noise: str, folder: bool, reason: str, corpus: Path, noises: Path, recognizer: Recognizer
) -> None:
    with pytest.raises(ValueError, match=reason):
        evaluate(corpus, recognizer, ["a"], snrs=[0], noise=noise, noise_dir=noises if folder else None)


VISUAL = {"occlusion": (100.0, 50.0), "offset": (80.0, -80.0), "frame_rate": (5.0,)}


@pytest.fixture(scope="module")
def seen(corpus: Path, recognizer: Recognizer) -> Evaluation:
    return evaluate(corpus, recognizer, ["a", "v", "av"], visual=VISUAL)


def test_every_corruption_has_a_row_for_every_input_from_the_neutral_strength_on(seen: Evaluation) -> None:
    values = seen.to_json()
    assert values["visual_sound"] == "clean"
    names = {kind: list(part["wer"]["av"]) for kind, part in values["visual"].items()}
    assert names == {"occlusion": ["0", "50", "100"], "offset": ["-80", "0", "80"], "frame_rate": ["25", "5"]}
    for kind, part in values["visual"].items():
        neutral = "25" if kind == "frame_rate" else "0"
        for modality in ("a", "v", "av"):
            assert part["wer"][modality][neutral] == values["wer"][modality]["clean"]
            assert list(part["interval_95"][modality]) == names[kind]
        assert set(part["wer"]["a"].values()) == {values["wer"]["a"]["clean"]}  # what is heard is what it was
    assert values["wer"] == {modality: {"clean": row["clean"]} for modality, row in values["wer"].items()}
    assert json.loads(json.dumps(values)) == values


def test_pictures_change_what_is_recognised_from_them(seen: Evaluation) -> None:
    texts = {(c.modality, c.visual, c.strength): c.texts for c in seen.conditions}
    assert texts["v", "occlusion", 100.0] != texts["v", None, None]
    assert texts["av", "offset", 80.0] != texts["av", "offset", -80.0]
    assert texts["a", "occlusion", 100.0] == texts["a", None, None]


def test_corruption_does_not_depend_on_batches_or_the_limit(
    corpus: Path, recognizer: Recognizer, seen: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_FRAMES", 1)
    again = evaluate(corpus, recognizer, ["a", "v", "av"], visual=VISUAL)
    assert [condition.texts for condition in again.conditions] == [condition.texts for condition in seen.conditions]
    few = evaluate(corpus, recognizer, ["v"], visual={"occlusion": (100.0,)}, limit=2, seed=0).conditions[-1].texts
    whole = next(c.texts for c in seen.conditions if (c.modality, c.visual, c.strength) == ("v", "occlusion", 100.0))
    assert few == {name: whole[name] for name in few}


def test_pictures_are_corrupted_in_noise_too(corpus: Path, recognizer: Recognizer) -> None:
    asked = {"noise": ["white"], "visual": {"missing": (100.0,)}}
    both = evaluate(corpus, recognizer, ["a", "v", "av"], **asked, visual_snr=-5)  # type: ignore[arg-type]
    values = both.to_json()
    assert (values["noise"], values["visual_sound"]) == ("none", "white, -5 dB")
    noisy = evaluate(corpus, recognizer, ["a", "v", "av"], snrs=[-5], noise=["white"])
    found = {(c.modality, c.strength): c.texts for c in both.conditions if c.visual}
    expected = {c.modality: c.texts for c in noisy.conditions if c.snr == -5}
    assert [found[modality, 0.0] for modality in ("a", "v", "av")] == [expected[modality] for modality in ("a", "v", "av")]
    assert found["a", 100.0] == expected["a"]
    quiet = evaluate(corpus, recognizer, ["v"], visual={"missing": (100.0,)})
    assert found["v", 100.0] == quiet.conditions[-1].texts  # noise does not change what is seen


def test_the_tables_of_corruptions_stand_behind_that_of_noise(seen: Evaluation) -> None:
    table = seen.table()
    assert [word for word in ("clean", "occlusion:", "offset:", "frame_rate:") if word in table] == [
        "clean",
        "occlusion:",
        "offset:",
        "frame_rate:",
    ]
    assert "−80 ms" in table
    assert "100 %" in table
    assert "5 fps" in table


def test_the_figure_of_corruptions_is_the_same_for_the_same_report(seen: Evaluation, tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        wer_against_strength(seen.to_json(), tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one.startswith(b"\x89PNG")
    assert one == two
    with pytest.raises(ValueError, match="avtlm evaluate --visual"):
        wer_against_strength({"wer": {}}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"modalities": ["a"], "visual": {"blur": (1.0,)}}, "nothing is to be seen; add the modality v or av"),
        ({"modalities": ["v"], "visual": {"fog": (1.0,)}}, "'fog' is unknown"),
        ({"modalities": ["v"], "visual": {"blur": (-1.0,)}}, "blur of -1 px makes no sense"),
        ({"modalities": ["av"], "visual_snr": 0.0}, "name kinds of corruption"),
        ({"modalities": ["av"], "visual": {"blur": (1.0,)}, "visual_snr": 0.0, "noise": []}, "there is no kind of noise"),
    ],
)
def test_corruptions_that_cannot_be_measured_are_refused(
    asked: dict[str, object], reason: str, corpus: Path, recognizer: Recognizer
) -> None:
    with pytest.raises(ValueError, match=reason):
        evaluate(corpus, recognizer, **asked)  # type: ignore[arg-type]


def with_all_heads() -> Recognizer:
    """A model of random weights that writes by CTC, an attention decoder and a transducer."""
    tiny = tiny_recognizer()
    decoder = DecoderConfig(dim=16, layers=1, heads=2, feed_forward_dim=16)
    transducer = TransducerConfig(weight=0.3, dim=8, context=2, joint_dim=8, dropout=0.0)
    heads = dataclasses.replace(tiny.config, ctc_weight=0.5, decoder=decoder, transducer=transducer)
    torch.manual_seed(1)
    model = Recognizer(heads, tiny.encoder, tiny.vocabulary)
    assert model.transducer is not None
    model.transducer.output.bias.data[:5] -= 8.0  # blanks and special symbols are not likely, so that there is a text
    return model.eval()


@pytest.mark.parametrize("method", ["ctc_greedy", "ctc_beam", "attention", "joint", "transducer"])
@pytest.mark.parametrize("modality", ["v", "av"])
def test_every_kind_of_recogniser_is_measured(method: str, modality: str, corpus: Path) -> None:
    decoding = [f"method={method}", "beam=2", "max_length_ratio=0.2", *(["ctc_weight=0.3"] if method == "joint" else [])]
    asked = {"limit": 2, "visual": {"missing": (100.0,)}, "decoding": decoding}
    whole, _, black = evaluate(corpus, with_all_heads(), [modality], **asked).conditions  # type: ignore[arg-type]
    assert (black.visual, black.strength) == ("missing", 100.0)
    assert whole.texts.keys() == black.texts.keys()
    if method.startswith("ctc"):  # of random weights, what is written by these depends on every frame
        assert any(whole.texts.values())
        assert modality == "av" or whole.texts != black.texts


def test_packed_and_padded_encoders_recognise_the_same_of_corrupted_pictures(corpus: Path, seen: Evaluation) -> None:
    for packing in ("always", "never"):
        model = tiny_recognizer()
        stack = model.encoder.encoder
        stack.config = dataclasses.replace(stack.config, packing=packing)  # type: ignore[type-var, assignment, arg-type]
        found = evaluate(corpus, model, ["a", "v", "av"], visual=VISUAL)
        assert [condition.texts for condition in found.conditions] == [condition.texts for condition in seen.conditions]
