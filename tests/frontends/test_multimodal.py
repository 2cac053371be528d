"""Fusion of audio, lips and phones: what is missing is zero, what is padded does not matter, masks hide what they should."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avtlm.data.batching import Batch
from avtlm.frontends.fusion import Fusion, keep_modalities, modality_dropout
from avtlm.frontends.lips import LipEncoderConfig, normalise_grey
from avtlm.frontends.multimodal import FrontEndConfig, InputMask, MultimodalFrontEnd
from avtlm.frontends.text import PhoneEncoder, downsampled

DIM = 8
CONFIG = FrontEndConfig(lips=LipEncoderConfig(size=22, stem_channels=4, widths=(4,), blocks=(1,), strides=(2,)), phones=9, dropout=0.0)


def front_end(config: FrontEndConfig = CONFIG, mask_audio: bool = True) -> MultimodalFrontEnd:
    torch.manual_seed(0)
    return MultimodalFrontEnd(config, DIM, mask_audio).eval()


def batch(lengths: tuple[int, ...] = (6, 4), audio: bool = True, video: bool = True, text: bool = False, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    rows, longest, counts = len(lengths), max(lengths), torch.tensor(lengths)
    return Batch(
        tuple("abcdef"[:rows]),
        "audio_video",
        torch.randn(rows, longest, 104, generator=generator) if audio else None,
        counts if audio else None,
        torch.randint(0, 256, (rows, longest, 22, 22), generator=generator, dtype=torch.uint8) if video else None,
        counts if video else None,
        torch.randint(4, 9, (rows, 4 * longest), generator=generator) if text else None,
        4 * counts if text else None,
    )


def slots(joined: Tensor) -> dict[str, Tensor]:
    return dict(zip(("audio", "video", "text"), joined.chunk(joined.shape[-1] // DIM, -1), strict=False))


@pytest.mark.parametrize("modality", ["a", "v"])
def test_a_missing_modality_is_a_block_of_zeros_behind_its_front_end(modality: str) -> None:
    module = front_end()
    joined = slots(module.join(batch().only(modality)).joined)
    both = slots(module.join(batch()).joined)
    there, gone = ("audio", "video") if modality == "a" else ("video", "audio")
    assert joined[gone].abs().max() == 0
    assert joined["text"].abs().max() == 0
    assert torch.equal(joined[there], both[there])


def test_a_row_that_lacks_a_modality_is_like_a_batch_that_lacks_it() -> None:
    module, whole = front_end(), batch((6, 6))
    mixed = replace(whole, video_lengths=torch.tensor([6, 0]))
    joined = module.join(mixed).joined
    assert torch.equal(joined[0], module.join(whole).joined[0])
    torch.testing.assert_close(joined[1], module.join(whole.only("a")).joined[1])


def test_dropped_rows_are_like_missing_ones() -> None:
    module, whole = front_end(), batch((6, 6))
    keep = {"audio": torch.tensor([True, False]), "video": torch.tensor([False, True])}
    joined = module.join(whole, keep=keep).joined
    torch.testing.assert_close(joined[0], module.join(whole.only("a")).joined[0])
    torch.testing.assert_close(joined[1], module.join(whole.only("v")).joined[1])


@pytest.mark.parametrize("kinds", [(True, True, False), (True, False, True), (False, False, True), (True, True, True)])
def test_joined_features_of_a_row_do_not_depend_on_its_batch(kinds: tuple[bool, bool, bool]) -> None:
    module = front_end(replace(CONFIG, feature_norm=True))
    whole = batch((7, 4, 5), *kinds)
    if whole.text is not None:
        whole = replace(whole, text_lengths=torch.tensor([27, 13, 20]))
    together = module.join(whole)
    for row in range(3):
        fields = {}
        for name in ("audio", "video", "text"):
            value, lengths = getattr(whole, name), getattr(whole, f"{name}_lengths")
            if value is not None:
                n = int(lengths[row])
                fields |= {name: value[row : row + 1, :n], f"{name}_lengths": lengths[row : row + 1]}
        alone = module.join(Batch(("x",), "audio_video", **fields))
        frames = int(alone.lengths)
        assert alone.lengths == together.lengths[row]
        torch.testing.assert_close(together.joined[row, :frames], alone.joined[0, :frames], atol=1e-5, rtol=1e-5)


def test_phones_are_cut_or_filled_up_to_the_clock_of_the_audio() -> None:
    module = front_end()
    long = module.join(replace(batch((6, 6), video=False, text=True), text=torch.full((2, 40), 5), text_lengths=torch.tensor([40, 40])))
    assert long.joined.shape[1] == 6
    short = module.join(replace(batch((6, 6), video=False, text=True), text=torch.full((2, 8), 5), text_lengths=torch.tensor([8, 5])))
    text = slots(short.joined)["text"]
    assert text[0, 1].abs().max() > 0
    assert text[:, 2:].abs().max() == 0
    assert short.lengths.tolist() == [6, 6]


def test_text_alone_sets_its_own_clock() -> None:
    fused = front_end().join(replace(batch((6, 4), False, False, True), text_lengths=torch.tensor([21, 16])))
    assert fused.lengths.tolist() == [6, 4]
    assert fused.joined.shape == (2, 6, 3 * DIM)


def test_phones_are_brought_to_a_quarter_of_their_rate() -> None:
    module = PhoneEncoder(9, DIM)
    for n in range(1, 12):
        assert module(torch.full((1, n), 5), torch.tensor([n])).shape == (1, -(-n // 4), DIM)
        assert downsampled(torch.tensor(n)) == -(-n // 4)


def test_hidden_audio_frames_become_the_learned_vector() -> None:
    module, whole = front_end(), batch((6, 6), video=False)
    assert module.audio_mask is not None
    hidden = torch.zeros(2, 6, dtype=torch.bool)
    hidden[0, 2:4] = True
    joined = slots(module.join(whole, InputMask(audio=hidden)).joined)["audio"]
    torch.testing.assert_close(joined[0, 2], module.audio(module.audio_mask))
    assert torch.equal(joined[1], slots(module.join(whole).joined)["audio"][1])


def test_hidden_video_frames_show_the_frames_they_are_told_to() -> None:
    module, whole = front_end(), batch((6, 6), audio=False)
    assert whole.video is not None
    source = torch.arange(6).repeat(2, 1)
    source[0, 1:3] = torch.tensor([4, 5])
    hidden = source != torch.arange(6)
    shown = replace(whole, video=torch.stack([whole.video[0, source[0]], whole.video[1]]))
    assert torch.equal(module.join(whole, InputMask(video=hidden, video_source=source)).joined, module.join(shown).joined)


def test_a_batch_of_one_hides_audio_and_video_as_zeros() -> None:
    module, whole = front_end(), batch((6,))
    assert whole.audio is not None
    assert whole.video is not None
    hidden = torch.tensor([[False, True, True, False, False, False]])
    video = normalise_grey(whole.video[0])[None].masked_fill(hidden[..., None, None], 0.0)
    by_hand = replace(whole, audio=whole.audio.masked_fill(hidden[..., None], 0.0), video=video)
    masked = module.join(whole, InputMask(hidden, hidden, torch.zeros(1, 6, dtype=torch.long))).joined
    torch.testing.assert_close(masked, module.join(by_hand).joined)


def test_gradients_into_audio_and_video_front_ends_are_scaled_and_into_phones_not() -> None:
    module, whole = front_end(), batch((6, 4), text=True)
    gradients = []
    for scale in (1.0, 0.1):
        module.zero_grad()
        module.join(whole, gradient_scale=scale).joined.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
    for name, ratio in (("audio.weight", 0.1), ("lips.stem.weight", 0.1), ("text.embedding.weight", 1.0)):
        torch.testing.assert_close(gradients[1][name], ratio * gradients[0][name])


def test_official_padding_is_computed_as_frames_of_mean_grey() -> None:
    module, plain = front_end(replace(CONFIG, compute_padding=True)), front_end()
    whole = batch((6, 4))
    assert whole.video is not None
    official, ours = module.join(whole).joined, plain.join(whole).joined
    torch.testing.assert_close(official[0], ours[0])
    torch.testing.assert_close(official[1, :4], ours[1, :4])
    assert ours[1, 4:].abs().max() == 0
    zeros = normalise_grey(whole.video.flatten(0, 1)).view(2, 6, 22, 22)
    zeros[1, 4:] = 0.0
    expected = plain.video(plain.lips(zeros, torch.tensor([6, 6])))
    torch.testing.assert_close(slots(official)["video"], expected)


def test_nothing_at_all_and_text_without_a_text_front_end_are_refused() -> None:
    with pytest.raises(ValueError, match="a: neither audio nor video nor text"):
        front_end().join(Batch(("a",), "audio"))
    with pytest.raises(ValueError, match="no text front-end"):
        front_end(replace(CONFIG, phones=0)).join(batch(text=True))


def test_concatenation_follows_the_order_of_names_and_adding_adds() -> None:
    one, two = torch.full((1, 2, 3), 1.0), torch.full((1, 2, 3), 2.0)
    concat, add = Fusion(3, ("audio", "video", "text")), Fusion(3, ("audio", "video"), "add")
    assert concat.join({"video": two, "audio": one})[0, 0].tolist() == [1, 1, 1, 2, 2, 2, 0, 0, 0]
    assert add.join({"video": two, "audio": one})[0, 0].tolist() == [3, 3, 3]
    assert concat(concat.join({"audio": one})).shape == (1, 2, 3)
    with pytest.raises(ValueError, match="give at least one of audio, video"):
        add.join({})


def test_modality_dropout_drops_one_of_two_with_the_given_probabilities() -> None:
    audio, video = modality_dropout(0.5, 0.25, torch.Generator().manual_seed(0), 20000)
    assert bool((audio | video).all())
    assert (audio & video).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (~audio).float().mean().item() == pytest.approx(0.125, abs=0.01)
    assert (~video).float().mean().item() == pytest.approx(0.375, abs=0.02)
    always = modality_dropout(0.0, 0.5, torch.Generator().manual_seed(0), 100)
    assert bool(always[0].all() and always[1].all())


@pytest.mark.parametrize("per_row", [True, False])
def test_a_row_with_one_modality_always_keeps_it(per_row: bool) -> None:
    sound, lips = (torch.zeros(3, 5, 104), torch.tensor([5, 0, 5])), (torch.zeros(3, 5, 4, 4), torch.tensor([5, 5, 0]))
    batch = Batch(("both", "lips", "sound"), "recognition", *sound, *lips)
    seen = set()
    for seed in range(40):
        keep = keep_modalities(batch, 1.0, 0.5, torch.Generator().manual_seed(seed), per_row)
        assert keep["video"][1]
        assert keep["audio"][2]
        assert keep["audio"][0] != keep["video"][0]
        seen.add(bool(keep["audio"][0]))
    assert seen == {True, False}
    assert keep_modalities(batch.only("a"), 1.0, 0.5, torch.Generator(), per_row) == {}
