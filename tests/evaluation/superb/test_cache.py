"""Hidden states are computed once, known by weights and sounds, and equal to what the encoder gives up to half precision."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avtlm.data.media import write_wav
from avtlm.evaluation.superb import cache
from avtlm.evaluation.superb.cache import CachedStates, LiveStates, Piece
from avtlm.evaluation.superb.data import Clip, CorpusError
from avtlm.evaluation.superb.features import FilterBank, ModelStates, groups, open_upstream
from tests.evaluation.superb import made_corpora
from tests.made_model import save_tiny_recognizer
from tests.systems import bridge_models, heard_models


class Counting(FilterBank):
    """How many clips were asked for."""

    def __init__(self) -> None:
        self.heard = 0

    def states(self, waves: list[np.ndarray]) -> list[torch.Tensor]:  # type: ignore[override]
        self.heard += len(waves)
        return super().states(waves)


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    found = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        write_wav(path, made_corpora.tone(300.0 + 200 * number, 0.3 + 0.1 * number, number))
        found.append(Clip(f"c{number}", path, place=f"rows, line {number + 1}"))
    return found


def test_kept_states_are_those_of_the_encoder(tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "TOGETHER", 1)
    encoder = ModelStates(made_corpora.save_encoder(tmp_path / "encoder"), "cpu")
    cached, live = CachedStates(encoder, tmp_path / "cache", shard_bytes=2000), LiveStates(encoder)
    cached.prepare(clips)
    pieces = [Piece(clip) for clip in clips]
    for kept, given, clip in zip(cached.of(pieces), live.of(pieces), clips, strict=True):
        assert kept.shape == given.shape
        assert abs(len(kept) - len(clip.wave()) / 320) < 1.5  # convolutions lose half a frame at each end
        torch.testing.assert_close(kept.float(), given, rtol=2e-3, atol=2e-3)
        assert cached.frames(clip) == len(kept)
        assert live.frames(clip) == round(len(clip.wave()) / 320)
    (part,) = cached.of([Piece(clips[2], 4, 5)])
    assert torch.equal(part, cached.of([Piece(clips[2])])[0][4:9])
    assert len(list((tmp_path / "cache").rglob("*.npy"))) > 1


def test_a_second_run_computes_nothing_and_new_clips_only(tmp_path: Path, clips: list[Clip]) -> None:
    upstream = Counting()
    CachedStates(upstream, tmp_path / "cache").prepare(clips[:2])
    assert upstream.heard == 2
    CachedStates(upstream, tmp_path / "cache").prepare(clips)
    assert upstream.heard == 3
    copy = tmp_path / "elsewhere.wav"
    copy.write_bytes(clips[0].audio.read_bytes())
    CachedStates(upstream, tmp_path / "cache").prepare([Clip("another name", copy)])  # the same sound in another place
    assert upstream.heard == 3


def test_other_sounds_pieces_and_weights_are_computed_anew(tmp_path: Path, clips: list[Clip]) -> None:
    upstream = Counting()
    states = CachedStates(upstream, tmp_path / "cache")
    states.prepare(clips[:1])
    piece = Clip("c0", clips[0].audio, 0.1, 0.25)
    states.prepare([piece])
    assert upstream.heard == 2
    assert states.frames(piece) == 13  # windows of 25 ms that fit into 150 ms
    write_wav(clips[0].audio, made_corpora.tone(900.0, 0.3))
    CachedStates(upstream, tmp_path / "cache").prepare(clips[:1])
    assert upstream.heard == 3
    first = ModelStates(made_corpora.save_encoder(tmp_path / "encoder"), "cpu")
    assert first.key == ModelStates(tmp_path / "encoder", "cpu").key
    model = tmp_path / "encoder" / "weights.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(bytes(content))
    assert first.key != ModelStates(tmp_path / "encoder", "cpu").key


def test_a_shard_without_its_index_or_with_a_damaged_one_does_not_count(tmp_path: Path, clips: list[Clip]) -> None:
    upstream = Counting()
    CachedStates(upstream, tmp_path / "cache").prepare(clips)
    (index,) = (tmp_path / "cache" / upstream.key[:16]).glob("*.json")
    index.write_text("{")
    CachedStates(upstream, tmp_path / "cache").prepare(clips)
    assert upstream.heard == 6


def test_live_states_of_a_piece_hear_the_piece_alone(clips: list[Clip]) -> None:
    live = LiveStates(FilterBank())
    (part,) = live.of([Piece(clips[2], 10, 20)])
    (alone,) = FilterBank().states([clips[2].wave()[1600:4800]])
    assert torch.equal(part, alone)


def test_filter_banks_have_deltas_and_no_mean() -> None:
    (states,) = FilterBank().states([made_corpora.tone(400.0)])
    assert states.shape[1:] == (1, 240)
    assert len(states) == 48  # whole windows of 25 ms in half a second, every 10 ms
    torch.testing.assert_close(states.mean(0), torch.zeros(1, 240), atol=1e-4, rtol=0)
    torch.testing.assert_close(states.std(0), torch.ones(1, 240), atol=1e-3, rtol=0)


def test_bands_that_hold_nothing_are_zero() -> None:
    low = np.repeat(made_corpora.tone(300.0, 0.25), 2)  # as if from 8 kHz, with digital silence behind it
    for wave in (np.concatenate([low, np.zeros(4000, dtype=np.float32)]), np.zeros(8000, dtype=np.float32)):
        (states,) = FilterBank().states([wave])
        assert float(states.abs().max()) < 10.0
    assert not states.any()
    (single,) = FilterBank().states([made_corpora.tone(400.0, 0.03)])  # one window has no deviation
    assert not single.any()


def test_batches_have_a_largest_size_with_their_padding() -> None:
    assert groups([3, 4, 9, 1, 20], 10) == [[0, 1], [2], [3], [4]]
    assert groups([1, 1], 0) == [[0], [1]]


def test_what_cannot_be_heard_is_named(tmp_path: Path, clips: list[Clip]) -> None:
    write_wav(tmp_path / "short.wav", np.zeros(100, dtype=np.float32))
    short = Clip("short", tmp_path / "short.wav", place="rows, line 9")
    with pytest.raises(CorpusError, match="rows, line 9: short: 100 samples are fewer"):
        CachedStates(FilterBank(), tmp_path / "cache").prepare([*clips, short])
    with pytest.raises(CorpusError, match="cannot be read"):
        CachedStates(FilterBank(), tmp_path / "cache").prepare([Clip("gone", tmp_path / "gone.wav")])


def test_a_wrong_frame_rate_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FilterBank, "frame_rate", 50.0)
    with pytest.raises(ValueError, match="its frame rate is not what its configuration says"):
        FilterBank().states([made_corpora.tone(400.0)])


def test_values_beyond_half_precision_and_full_disks_are_refused(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FilterBank, "_states", lambda self, waves: [torch.full((round(len(waves[0]) / 160), 1, 240), 1e6)])
    with pytest.raises(ValueError, match="too large for half precision; go on with --no-cache"):
        CachedStates(FilterBank(), tmp_path / "cache").prepare(clips[:1])
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 10})())
    with pytest.raises(ValueError, match="do not fit into the 0 GB that are free"):
        CachedStates(FilterBank(), tmp_path / "cache").prepare(clips[:1])


def test_a_model_without_an_encoder_of_sound_is_refused(tmp_path: Path) -> None:
    from avtlm.checkpoint import save_model
    from avtlm.config import to_dict
    from avtlm.systems.language_model import LanguageModel, LanguageModelConfig

    settings = LanguageModelConfig(vocabulary=8, dim=8, layers=1, heads=1, feed_forward_dim=8)
    save_model(
        tmp_path / "model", LanguageModel(settings), {"system": "language_model", "task": "language_model", "model": to_dict(settings)}
    )
    with pytest.raises(ValueError, match="neither hears nor sees"):
        open_upstream(tmp_path / "model")


def _save_speechlm(folder: Path) -> Path:
    from avtlm.checkpoint import save_model
    from avtlm.config import to_dict

    model = bridge_models.speechlm()
    save_model(folder, model, {"system": "speechlm", "task": "pretrain", "model": to_dict(model.config)})
    return folder


@pytest.mark.parametrize(
    ("save", "layers", "width", "rate"),
    [
        (made_corpora.save_encoder, 3, 16, 50.0),
        (_save_speechlm, 4, 16, 50.0),  # the outputs of both encoders
        (save_tiny_recognizer, 2, 16, 25.0),  # audio-visual, heard alone
        (heard_models.save_tiny, 3, 24, 25.0),  # two stacks and what they come to
    ],
)
def test_every_kind_of_model_folder_is_heard(save: Callable[[Path], Path], layers: int, width: int, rate: float, tmp_path: Path) -> None:
    upstream = open_upstream(save(tmp_path / "model"), "cpu")
    assert (upstream.layers, upstream.width, upstream.frame_rate) == (layers, width, rate)
    short, long = made_corpora.tone(500.0, 0.6), made_corpora.tone(700.0, 1.0)
    together = upstream.states([short, long])
    (alone,) = upstream.states([short])
    torch.testing.assert_close(together[0], alone)
    assert abs(len(together[1]) - rate) < 3  # convolutions lose some at the ends
