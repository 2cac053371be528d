"""MMSpeech: its five tasks, what they learn from and are divided by, independence of the batch, sizes, and its use as a recogniser."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from avtlm import config, systems
from avtlm.checkpoint import save_model
from avtlm.data.batching import Batch
from avtlm.decoding.settings import DecodingConfig
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.biased_decoder import BiasedDecoderConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.phone_noise import PhoneNoiseConfig
from avtlm.systems.mmspeech import FIRST_PHONE, MMSpeech, MMSpeechConfig, MMSpeechLosses
from avtlm.text.vocabulary import EOS, PAD, SPECIALS, Vocabulary
from tests.systems.mandarin_models import MMSPEECH, mmspeech, pairs, speech, texts

SYMBOLS = Vocabulary([*SPECIALS, *"一二三四五六", "<mask>", "<blank>"])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def row_of(batch: Batch, row: int) -> Batch:
    """One row of a batch, without its padding."""

    def cut(part: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return part[row : row + 1, : int(lengths[row])]

    parts: dict[str, Any] = {}
    for name in ("audio", "text", "text_units"):
        part, lengths = getattr(batch, name), getattr(batch, f"{name}_lengths")
        if part is not None:
            parts |= {name: cut(part, lengths), f"{name}_lengths": lengths[row : row + 1]}
    targets = {
        name: cut(part, batch.target_lengths[name]) if name in batch.target_lengths else part[row : row + 1]
        for name, part in batch.targets.items()
    }
    return Batch(
        (batch.ids[row],),
        batch.task,
        targets=targets,
        target_lengths={n: c[row : row + 1] for n, c in batch.target_lengths.items()},
        **parts,
    )


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("blocks", [1, 3])
def test_what_is_said_of_speech_and_of_phonemes_does_not_depend_on_the_batch(norm_first: bool, blocks: int) -> None:
    model = mmspeech(encoder=replace(MMSPEECH.encoder, norm_first=norm_first), position_blocks=blocks)
    batch = pairs()
    memory, lengths = model.remember(batch)
    read = model.read_phones(texts().text_units, torch.tensor([7, 4, 9]))  # type: ignore[arg-type]
    for row in range(3):
        alone, count = model.remember(row_of(batch, row))
        assert count.tolist() == [int(lengths[row])]
        torch.testing.assert_close(memory[row, : int(count)], alone[0], atol=1e-5, rtol=1e-4)
        length = [7, 4, 9][row]
        single = model.read_phones(texts().text_units[row : row + 1, :length], torch.tensor([length]))  # type: ignore[index]
        torch.testing.assert_close(read.memory[row, :length], single.memory[0], atol=1e-5, rtol=1e-4)


def test_losses_of_pairs_are_sums_over_clips_divided_by_their_number() -> None:
    model, batch = mmspeech(), pairs()
    found = model.losses(batch, generator())
    assert list(found) == ["s2t", "pp"]
    assert [loss.count.item() for loss in found.values()] == [3, 0]
    for name in found:
        alone = sum(model.losses(row_of(batch, row), generator())[name].value.item() for row in range(3))
        assert found[name].value.item() == pytest.approx(alone, rel=1e-4)


def test_pairs_are_masked_in_training_alone() -> None:
    model, batch = mmspeech(), pairs()
    whole = model.losses(batch, generator())["s2t"].value
    assert torch.equal(model.losses(batch, torch.Generator().manual_seed(9))["s2t"].value, whole)
    model.train()
    assert not torch.equal(model.losses(batch, generator())["s2t"].value, whole)


def test_speech_to_text_chooses_among_texts_and_speech_to_codes_among_all() -> None:
    model = mmspeech()
    batch = pairs()
    read = model.read_speech(model.hear(batch))
    tokens, counts = batch.targets["tokens"], batch.target_lengths["tokens"]
    ended = F.pad(tokens, (0, 1), value=PAD).scatter(1, counts[:, None], EOS)
    logits = model.decoder(torch.cat([torch.zeros(3, 1).long(), ended[:, :-1]], 1), read.memory, read.lengths)
    for symbols, table in ((12, logits[..., :12]), (None, logits)):
        expected = F.cross_entropy(table.transpose(1, 2), ended, ignore_index=PAD, reduction="sum")
        torch.testing.assert_close(model.written_loss(read, tokens, counts, symbols).value, expected)


def test_phonemes_are_learned_by_ctc_whose_blank_is_the_unknown_phoneme() -> None:
    model, batch = mmspeech(), pairs()
    read = model.read_speech(model.hear(batch))
    table = model.phone_embedding.weight[3:13]
    log_probs = (read.states @ table.T).log_softmax(-1).transpose(0, 1)
    phones = batch.targets["phones"] - FIRST_PHONE + 1
    expected = F.ctc_loss(log_probs, phones, read.lengths, batch.target_lengths["phones"], blank=0, reduction="sum")
    torch.testing.assert_close(model.losses(batch, generator())["pp"].value, expected)
    expected.backward()
    assert float(model.phone_embedding.weight.grad[3:13].abs().sum()) > 0  # type: ignore[index]


def test_codes_are_runs_of_units_merged() -> None:
    model = mmspeech()
    units = torch.tensor([[4, 4, 5, 4, 4, 10], [6, 6, 6, -1, -1, -1]])
    codes, counts = model.codes_of(Batch(("a", "b"), "speech", targets={"units": units}))
    assert codes.tolist() == [[12, 13, 12, 18], [14, PAD, PAD, PAD]]
    assert counts.tolist() == [4, 1]


def test_losses_of_speech_alone() -> None:
    model, batch = mmspeech(), speech()
    found = model.losses(batch, generator())
    assert list(found) == ["s2c", "msp"]
    assert [loss.count.item() for loss in found.values()] == [3, 0]
    assert found["msp"].value.item() > 0
    assert {"msp_teacher_deviation", "msp_student_deviation"} <= set(found["msp"].logs)
    assert "s2c_token_accuracy" in found["s2c"].logs
    assert torch.equal(model.losses(batch, generator())["msp"].value, found["msp"].value)


def test_the_teacher_hears_all_without_dropout_and_before_the_last_norm_and_gets_no_gradient() -> None:
    model, batch = mmspeech(encoder=replace(MMSPEECH.encoder, dropout=0.5)), speech()
    heard = model.hear(batch)
    taught = model.teach(heard)
    seen, _ = model.place(heard.frames, heard.lengths, model.speech_positions)
    states = model.encoder.hidden_states(seen, heard.lengths, 4)
    torch.testing.assert_close(taught, model.phone_logits(states[-1]))
    model.train()
    torch.testing.assert_close(model.teach(heard), taught)
    assert model.encoder.training
    mask = InputMask(fused=torch.ones(3, heard.frames.shape[1], dtype=torch.bool))
    model.eval()
    read = model.read_speech(heard, mask)
    model.agreement(heard, read, mask).value.backward()
    assert model.phone_embedding.weight.grad is None
    assert float(model.encoder.layers[0].feed_forward.expand.weight.grad.abs().sum()) > 0  # type: ignore[union-attr, operator]


def test_agreement_is_zero_where_nothing_hides_anything_and_the_last_norm_does_nothing() -> None:
    model = mmspeech(encoder=replace(MMSPEECH.encoder, norm_first=False))
    heard = model.hear(speech())
    hidden = torch.zeros(3, heard.frames.shape[1], dtype=torch.bool)
    hidden[:, 1:4] = True
    loss = model.agreement(heard, model.read_speech(heard), InputMask(fused=hidden))
    assert loss.value.item() == pytest.approx(0.0, abs=1e-4)
    assert loss.count.item() == 9


def test_losses_of_texts_come_from_their_phonemes_alone() -> None:
    model, batch = mmspeech(noise=PhoneNoiseConfig(share=0.0)), texts()
    found = model.losses(batch, generator())
    assert list(found) == ["p2t"]
    assert found["p2t"].count.item() == 3
    alone = sum(model.losses(row_of(batch, row), generator())["p2t"].value.item() for row in range(3))
    assert found["p2t"].value.item() == pytest.approx(alone, rel=1e-4)
    found["p2t"].value.backward()
    assert model.frontend.flat.weight.grad is None
    assert model.encoder.layers[1].feed_forward.expand.weight.grad is None  # type: ignore[union-attr, operator]
    assert model.encoder.layers[2].feed_forward.expand.weight.grad is not None  # type: ignore[union-attr, operator]
    noisy = mmspeech(noise=PhoneNoiseConfig(share=0.9))
    assert not torch.equal(noisy.losses(batch, generator())["p2t"].value, found["p2t"].value)


def test_a_step_of_all_three_kinds_reaches_every_parameter_and_is_divided_by_sentences() -> None:
    model = mmspeech().train()
    groups = [model.losses(batch, generator()) for batch in (pairs(), texts(), speech())]
    losses = [loss for group in groups for loss in group.values()]
    assert sum(int(loss.count) for loss in losses) == 9
    torch.stack([loss.value for loss in losses]).sum().backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)]
    assert [name for name in unused if not name.endswith("key.bias")] == []  # softmax does not see biases of keys


def test_weights_of_tasks_count_and_leave_them_out() -> None:
    plain = mmspeech().losses(pairs(), generator())
    weighed = mmspeech(losses=MMSpeechLosses(s2t=0.0, pp=3.0)).losses(pairs(), generator())
    assert list(weighed) == ["pp"]
    assert weighed["pp"].value.item() == pytest.approx(3 * plain["pp"].value.item())
    assert weighed["pp"].count.item() == 3
    with pytest.raises(ValueError, match="all tasks of a batch count 0"):
        mmspeech(losses=MMSpeechLosses(s2t=0.0, pp=0.0)).losses(pairs(), generator())


@pytest.mark.parametrize(
    ("batch", "changes", "message"),
    [
        (replace(pairs(), targets={"tokens": pairs().targets["tokens"]}), {}, "pair 0: no phonemes beside its transcript"),
        (replace(speech(), targets={}), {}, "clip 0: no labels 'units'"),
        (speech(), {"task": "recognition"}, "clip 0: speech without a transcript"),
        (Batch(("x",), "units"), {}, "x: neither speech nor phonemes of a text"),
        (replace(texts(), text=None), {}, "text 0: neither speech nor the text of its phonemes"),
        (replace(texts(), text_units=texts().text_units + 20), {}, "the table has 16 rows; see model.phones"),  # type: ignore[operator]
        (replace(pairs(), audio=torch.zeros(3, 9, 104)), {}, "pair 0: features where this model takes a waveform"),
    ],
)
def test_what_a_batch_lacks_is_said_in_one_sentence(batch: Batch, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        mmspeech(**changes).losses(batch, generator())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"speech_layers": 4},
        {"speech_layers": 0},
        {"vocabulary": 6},
        {"phone_classes": 1},
        {"encoder": replace(MMSPEECH.encoder, position_kernel=9)},
        {"decoder": replace(MMSPEECH.decoder, dim=8)},
    ],
)
def test_settings_that_make_no_model_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(MMSPEECH, **wrong)


def test_one_span_is_hidden_where_the_share_is_just_above_0_as_in_the_released_collater() -> None:
    model = mmspeech()
    heard = model.hear(speech())
    mask = model.draw_mask(heard, SpanMaskConfig(prob=1e-6, length=2, min_spans=1), generator())
    assert mask.fused is not None
    assert mask.fused.sum(1).tolist() == [2, 2, 2]


def test_published_sizes_have_the_official_numbers_of_parameters() -> None:
    """Theirs carry tables of pictures, a norm and a projection besides, which nothing uses."""
    for dim, layers, heads, total in ((768, (12, 6), 12, 210_967_464), (1024, (24, 12), 16, 608_949_696)):
        shared = {"dim": dim, "heads": heads, "feed_forward_dim": 4 * dim}
        settings = MMSpeechConfig(
            encoder=EncoderConfig(layers=layers[0], position_kernel=0, **shared),  # type: ignore[arg-type]
            decoder=BiasedDecoderConfig(layers=layers[1], **shared),  # type: ignore[arg-type]
        )
        with torch.device("meta"):
            model = MMSpeech(settings)
        pictures = (42**2 + 1) * dim + 4 * dim + layers[1] * heads * ((2 * 42 - 1) ** 2 + 3)
        unused = 2 * dim + dim * (dim + 1)
        assert sum(parameter.numel() for parameter in model.parameters()) + pictures + unused == total


def test_without_codes_it_writes_the_same_texts(tmp_path: Path) -> None:
    model, batch = mmspeech(), pairs()
    memory, lengths = model.remember(batch)
    tokens = torch.tensor([[0, 5, 6]] * 3)
    before = model.decoder(tokens, memory, lengths)[..., :12]
    model.drop_heads()
    torch.testing.assert_close(model.decoder(tokens, memory, lengths), before)


@pytest.mark.parametrize("words", [True, False])
def test_a_folder_of_it_transcribes_and_repeats_no_sequence(tmp_path: Path, words: bool) -> None:
    made = mmspeech(task="recognition", codes=0)
    with torch.no_grad():
        made.decoder.embedding.weight[[10, 11]] *= 4.0  # it would rather write holes and blanks
    card = {"system": "mmspeech", "task": "transcription", "model": config.to_dict(made.config)}
    save_model(tmp_path / "model", made, card, SYMBOLS)
    model = systems.load(tmp_path / "model")
    assert model.decoding.no_repeat_ngram == 5
    assert model.heads.start == 0
    batch = pairs()
    decoding = DecodingConfig("attention", beam=3, max_length_ratio=0.0, max_length_extra=12.0, no_repeat_ngram=2, words=words)
    found = model.search(batch, decoding)
    for [best] in found:
        pairs_of = list(zip(best.tokens, best.tokens[1:], strict=False))
        assert len(set(pairs_of)) == len(pairs_of)
        assert set(best.tokens).isdisjoint({10, 11})
        assert bool(best.timesteps) == (words and 0 < len(best.tokens) <= 9)
    for row in range(3):
        [[alone]] = model.search(row_of(batch, row), decoding)
        assert alone.tokens == found[row][0].tokens
        assert alone.score == pytest.approx(found[row][0].score, abs=1e-4)


def test_encoded_frames_are_those_of_any_layer() -> None:
    model, batch = mmspeech(), pairs()
    states, lengths = model.encode(batch)
    assert states.shape == (3, lengths.max().item(), 16)
    torch.testing.assert_close(model.remember(batch)[0][..., :16], states)
    assert not torch.allclose(model.encode(batch, 2)[0], states)
    assert model.input_format.frame_rate == 25.0
