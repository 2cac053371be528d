"""The recogniser: transcripts and losses of a clip never depend on its batch, and heads weigh as they are told."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avtlm import config, systems
from avtlm.data.batching import Batch
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig
from avtlm.nn.transformer import DecoderConfig, EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.recognizer import DecodingConfig, Recognizer, RecognizerConfig, transcribe_all
from avtlm.systems.vatlm import VATLMConfig
from avtlm.text.vocabulary import PAD, Vocabulary

VOCABULARY = Vocabulary.characters(["abc de"])
ENCODER = VATLMConfig(
    frontends=FrontEndConfig(lips=LipEncoderConfig(size=22, stem_channels=4, widths=(4,), blocks=(1,), strides=(2,)), phones=0),
    encoder=EncoderConfig(dim=16, layers=2, heads=2, feed_forward_dim=16, position_kernel=4, position_groups=2),
    units=4,
    final_dim=4,
)
DECODER = DecoderConfig(dim=16, layers=1, heads=2, feed_forward_dim=16)
BOTH = RecognizerConfig(encoder=config.to_dict(ENCODER), ctc_weight=0.3, decoder=DECODER, modality_dropout=0.0, dropout=0.0)


def recogniser(settings: RecognizerConfig = BOTH) -> Recognizer:
    torch.manual_seed(0)
    model = Recognizer(settings, systems.find("vatlm").build(ENCODER), VOCABULARY)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, 0.0, 0.4)  # of a size at which transcripts differ
    return model.eval()


def batch(lengths: tuple[int, ...] = (12, 5, 9), audio: bool = True, video: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(2)
    rows, longest, counts = len(lengths), max(lengths), torch.tensor(lengths)
    tokens, sizes = torch.randint(5, len(VOCABULARY), (rows, 4), generator=generator), torch.tensor([4, 1, 2, 3][:rows])
    for row in range(rows):
        tokens[row, sizes[row] :] = PAD
    return Batch(
        tuple("abcdef"[:rows]),
        "recognition",
        torch.randn(rows, longest, 104, generator=generator) if audio else None,
        counts if audio else None,
        torch.randint(0, 256, (rows, longest, 22, 22), generator=generator, dtype=torch.uint8) if video else None,
        counts if video else None,
        targets={"tokens": tokens},
        target_lengths={"tokens": sizes},
    )


def row_of(whole: Batch, row: int) -> Batch:
    def cut(value: Tensor | None, lengths: Tensor | None) -> Tensor | None:
        return None if value is None or lengths is None else value[row : row + 1, : int(lengths[row])]

    return replace(
        whole,
        ids=(whole.ids[row],),
        audio=cut(whole.audio, whole.audio_lengths),
        audio_lengths=None if whole.audio_lengths is None else whole.audio_lengths[row : row + 1],
        video=cut(whole.video, whole.video_lengths),
        video_lengths=None if whole.video_lengths is None else whole.video_lengths[row : row + 1],
        targets={"tokens": whole.targets["tokens"][row : row + 1, : int(whole.target_lengths["tokens"][row])]},
        target_lengths={"tokens": whole.target_lengths["tokens"][row : row + 1]},
    )


@pytest.mark.parametrize("method", ["ctc_greedy", "ctc_beam", "attention"])
@pytest.mark.parametrize("modality", ["av", "a", "v"])
def test_a_transcript_does_not_depend_on_its_batch(method: str, modality: str) -> None:
    model, whole = recogniser(), batch().only(modality)
    decoding = DecodingConfig(method=method, beam=3)  # type: ignore[arg-type]
    together = model.transcribe_batch(whole, decoding)
    assert modality == "v" or len({result.text for result in together}) > 1
    for row, result in enumerate(together):
        alone = model.transcribe_batch(row_of(whole, row), decoding)[0]
        assert alone.text == result.text
        assert [h.tokens for h in alone.hypotheses] == [h.tokens for h in result.hypotheses]
        for ours, other in zip(alone.hypotheses, result.hypotheses, strict=True):
            assert ours.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_the_loss_of_a_batch_is_the_sum_of_its_clips(weight: float) -> None:
    method = "ctc_greedy" if weight else "attention"
    model = recogniser(replace(BOTH, ctc_weight=weight, decoding=DecodingConfig(method=method)))  # type: ignore[arg-type]
    whole = batch()
    together = model.losses(whole, torch.Generator())["recognition"]
    alone = [model.losses(row_of(whole, row), torch.Generator())["recognition"] for row in range(3)]
    assert together.value.item() == pytest.approx(sum(loss.value.item() for loss in alone), rel=1e-4)
    assert together.count == sum(int(loss.count) for loss in alone)


def test_heads_are_weighted_by_their_mean_losses() -> None:
    model, whole = recogniser(), batch()
    loss = model.losses(whole, torch.Generator())["recognition"]
    ctc, count = loss.logs["ctc_loss"]
    smoothed = recogniser(replace(BOTH, ctc_weight=0.0, decoding=DecodingConfig(method="attention")))
    smoothed.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if not name.startswith("ctc.")})
    attention = smoothed.losses(whole, torch.Generator())["recognition"]
    expected = 0.3 * ctc / count + 0.7 * attention.value / attention.count
    assert (loss.value / loss.count).item() == pytest.approx(expected.item(), rel=1e-5)


def test_empty_transcripts_have_a_finite_loss() -> None:
    whole = replace(batch(), targets={"tokens": torch.zeros(3, 0, dtype=torch.long)}, target_lengths={"tokens": torch.zeros(3).long()})
    assert recogniser().losses(whole, torch.Generator())["recognition"].value.isfinite()


def test_what_is_drawn_comes_from_the_generator() -> None:
    spans = SpanMaskConfig(0.4, 3)
    model = recogniser(replace(BOTH, modality_dropout=0.5, audio_mask=spans, video_mask=spans))
    values = [model.losses(batch(), torch.Generator().manual_seed(seed))["recognition"].value.item() for seed in (1, 1, 2)]
    assert values[0] == values[1]
    assert values[0] != values[2]


def test_a_row_without_picture_is_read_from_its_sound() -> None:
    model, whole = recogniser(), batch((9, 9))
    mixed = replace(whole, video_lengths=torch.tensor([9, 0]))
    assert model.transcribe_batch(mixed)[1].text == model.transcribe_batch(row_of(whole, 1).only("a"))[0].text


def test_the_official_length_limit_is_the_width_of_the_audio_features_or_the_longest_clip() -> None:
    model, ours = recogniser(), DecodingConfig(method="attention", beam=3, max_length_extra=2)
    official = replace(ours, official_length_limit=True)
    options = model.beam_options(batch(), ours)
    assert (options.max_len_a, options.max_len_b, options.max_len) == (1.0, 2, 2047)
    assert (model.beam_options(batch(), official).max_len_a, model.beam_options(batch(), official).max_len_b) == (0.0, 106)
    assert model.beam_options(batch(audio=False), official).max_len_b == 14
    [short, *_] = model.search(batch(audio=False), replace(official, max_length_ratio=0.0, max_length_extra=1))
    assert len(short[0].tokens) <= 1


def test_transcribing_leaves_the_training_mode_as_it_was() -> None:
    model = recogniser().train()
    texts = transcribe_all(model, [batch(), batch(audio=False)])
    assert model.training
    assert set(texts) == {"a", "b", "c"}
    model.eval()
    assert transcribe_all(model, [batch()], "v") == transcribe_all(model, [batch(audio=False)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ctc_weight": 1.5}, "ctc_weight: 1.5 is not between 0"),
        ({"decoder": None}, "decoder is null"),
        ({"ctc_weight": 0.0}, "ctc_greedy needs a CTC head"),
        ({"ctc_weight": 1.0, "decoder": None, "decoding": DecodingConfig(method="attention")}, "attention needs a decoder"),
        ({"ctc_weight": 0.0, "decoding": DecodingConfig("attention", ctc_weight=0.3)}, "decoding.ctc_weight: 0.3 needs a CTC head"),
    ],
)
def test_heads_and_decoding_must_fit(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BOTH, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beam: 0"):
        DecodingConfig(beam=0)


def test_ctc_has_a_say_in_the_ranking_of_the_attention_decoder() -> None:
    model = recogniser()
    plain = DecodingConfig("attention", beam=4)
    best = model.search(batch(), plain)
    assert [len(found) for found in best] == [1, 1, 1]
    ranked = model.search(batch(), replace(plain, ctc_weight=1.0, nbest=4))
    for found in ranked:
        assert len(found) > 1
        assert [one.components["ctc"] for one in found] == sorted((one.components["ctc"] for one in found), reverse=True)
    with pytest.raises(ValueError, match=r"ctc_weight: 0\.3 for ctc_beam"):
        DecodingConfig("ctc_beam", ctc_weight=0.3)


def test_decoding_without_the_head_for_it_is_refused() -> None:
    ctc = recogniser(replace(BOTH, ctc_weight=1.0, decoder=None))
    with pytest.raises(ValueError, match="this model has no decoder"):
        ctc.search(batch(), DecodingConfig(method="attention"))
    attention = recogniser(replace(BOTH, ctc_weight=0.0, decoding=DecodingConfig(method="attention")))
    with pytest.raises(ValueError, match="this model has no CTC head"):
        attention.search(batch(), DecodingConfig(method="ctc_beam"))
