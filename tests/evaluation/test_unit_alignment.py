"""The alignment of speech and units: shares that follow by hand from made states, and a run of a tiny model by the command."""

import json
from pathlib import Path

import numpy as np
import pytest

from avtlm import config
from avtlm.checkpoint import save_model
from avtlm.cli import main
from avtlm.evaluation.unit_alignment import Frames, alignment, table, unit_alignment, unpaired_points
from tests.made_corpus import MadeCorpus, make_corpus
from tests.made_model import save_tiny_recognizer
from tests.systems.bridge_models import SPEECHLM, speechlm
from tests.training.made_runs import with_units_at_50_hz

PHONES = ("aa", "t", "sil")


def frames(name: str, spoken: str, speech: str, units: str, noise: float = 0.0) -> Frames:
    """A clip whose states of either side lie where the phones of these numbers do."""
    rng = np.random.default_rng(0)

    def states(numbers: str) -> np.ndarray:
        found = 5.0 + np.eye(3)[[int(number) for number in numbers]] + noise * rng.normal(size=(len(numbers), 3))
        return found.astype(np.float32)

    return Frames(name, tuple(PHONES[int(number)] for number in spoken), {2: states(speech)}, {2: states(units)})


LEARNED = [frames("a", "0120", "0000", "0120"), frames("b", "21", "00", "21")]


def test_frames_are_aligned_where_both_sides_are_given_one_phone_right_or_wrong() -> None:
    measured = [frames("c", "00112", "00101", "00011"), frames("d", "02", "02", "12")]
    found = alignment(LEARNED, measured, 2)
    assert {kind: row["frames"] for kind, row in found.items()} == {"total": 7, "vowel": 3, "consonant": 2, "silence": 2}
    # Frame by frame: 0=0, 0=0, 1/0, 0/1, 1=1 | 0/1, 2=2
    assert found["total"]["aligned"] == pytest.approx(4 / 7)
    assert found["vowel"]["aligned"] == pytest.approx(2 / 3)
    assert found["consonant"]["aligned"] == 0.0
    assert found["silence"]["aligned"] == 1.0  # one of them wrongly, but alike
    assert found["silence"]["speech"] == 0.5
    assert found["total"]["units"] == pytest.approx(4 / 7)
    assert found["total"]["chance"] == pytest.approx(4 / 7 * 3 / 7 + 2 / 7 * 3 / 7 + 1 / 7 * 1 / 7)


def test_a_shift_that_both_sides_share_changes_nothing_and_one_of_a_side_does() -> None:
    measured = [frames("c", "0121", "0121", "0121")]
    assert alignment(LEARNED, measured, 2)["total"]["aligned"] == 1.0
    shifted = Frames("c", measured[0].phones, {2: measured[0].speech[2] + np.float32([9, 0, 0])}, measured[0].units)
    assert alignment(LEARNED, [shifted], 2)["total"]["aligned"] < 1.0


def test_points_are_unpaired_means_over_phones_without_silence() -> None:
    heard, read = [frames("a", "00112", "00112", "22222")] * 3, [frames("b", "0111221", "2222222", "0111221")] * 3
    points = unpaired_points(heard, read, 2)
    assert {(clip, side) for clip, side in zip(points.clips, points.inputs, strict=True)} == {("a", "speech"), ("b", "units")}
    assert points.labels == ("aa", "t") * 3 + ("aa", "t", "t") * 3
    np.testing.assert_allclose(points.features[0], [6, 5, 5])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    folder = tmp_path_factory.mktemp("corpus")
    return with_units_at_50_hz(make_corpus(folder / "made", 16), folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(folder, speechlm(), {"system": "speechlm", "task": "pretrain", "model": config.to_dict(SPEECHLM)})
    return folder


def test_the_command_prints_a_table_and_writes_figure_and_numbers(
    corpus: MadeCorpus, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "alignment.png"
    given = ["visualize", "alignment", str(corpus.sound), "--units", str(corpus.units), "--model", str(model), "--split", "all"]
    assert main([*given, "--out", str(figure), "--limit", "12"]) == 0
    said = capsys.readouterr().out
    numbers = json.loads(figure.with_suffix(".json").read_text())
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert list(numbers["layers"]) == ["2", "3", "4"]
    assert numbers["clips"] == 12
    for rows in numbers["layers"].values():
        assert sum(rows[kind]["frames"] for kind in rows if kind != "total") == rows["total"]["frames"] == numbers["frames"]
        assert all(0 <= row["aligned"] <= 1 for row in rows.values())
    assert table(numbers) in said
    assert str(figure) in said


def test_units_are_read_frame_by_frame(corpus: MadeCorpus, model: Path) -> None:
    """In a made corpus a phone has one unit, so that prototypes of embeddings tell phones from units without fault."""
    numbers = unit_alignment(corpus.sound, corpus.units, model, layers=[2], split=None)
    assert numbers["layers"]["2"]["total"]["units"] > 0.95  # but for frames at the borders of phones
    assert unit_alignment(corpus.sound, corpus.units, model, layers=[2], split=None) == numbers


def test_what_does_not_fit_is_said_in_a_sentence(corpus: MadeCorpus, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layers: 1; units are in the layers 2 to 4 of this model"):
        unit_alignment(corpus.sound, corpus.units, model, layers=[1, 2])
    with pytest.raises(ValueError, match=r"0 clips with timed phones|no utterance"):
        unit_alignment(corpus.sound, corpus.units, model, split="test")
    with pytest.raises(ValueError, match="this model reads no units"):
        unit_alignment(corpus.sound, corpus.units, save_tiny_recognizer(tmp_path / "recognizer"))
