"""VATLM against the official implementation (microsoft/SpeechT5, VATLM/vat_hubert) on stored cases, at the cases' tolerances."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from avtlm import config
from avtlm.convert.names.vatlm import rename, rename_key
from avtlm.data.batching import Batch
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.frontends.fusion import Fusion
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig, InputMask
from avtlm.nn.attention import padding_mask
from avtlm.nn.transformer import DecoderConfig, EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.systems.vatlm import VATLM, VATLMConfig
from avtlm.text.vocabulary import EOS, PAD, Vocabulary
from tests.golden_case import GoldenCase, error, gradient_error, read_case

FORWARD, LOSS, GRADIENT = 1e-5, 1e-5, 1e-3


def our_config(official: dict[str, Any]) -> VATLMConfig:
    spans = SpanMaskConfig(official["mask_prob_audio"], official["mask_length_audio"])
    return VATLMConfig(
        frontends=FrontEndConfig(
            lips=LipEncoderConfig(stem_channels=official["resnet_widths"][0], widths=tuple(official["resnet_widths"])), compute_padding=True
        ),
        encoder=EncoderConfig(
            dim=official["encoder_embed_dim"],
            layers=official["encoder_layers"],
            heads=official["encoder_attention_heads"],
            feed_forward_dim=official["encoder_ffn_embed_dim"],
            norm_first=official["layer_norm_first"],
            position_kernel=official["conv_pos"],
            position_groups=official["conv_pos_groups"],
        ),
        units=official["num_clusters"][0] + 4,
        final_dim=official["final_dim"],
        temperature=official["logit_temp"],
        masking=official["masking_type"],
        audio_mask=spans,
        video_mask=spans,
        feature_penalty=official["loss_weights"][0],
        feature_gradient_scale=official["feature_grad_mult"],
    )


def our_model(case: GoldenCase) -> VATLM:
    model = VATLM(our_config(case.config))
    model.load_state_dict(rename(case.state, mask_audio=case.config["masking_type"] == "input"))
    return model.eval()


def our_batch(inputs: dict[str, Tensor], prefix: str = "", task: str = "audio_video") -> Batch:
    """Official layouts, audio (batch, 104, frames) and video (batch, 1, frames, 88, 88), as ours."""
    tensors = {name.removeprefix(prefix): tensor for name, tensor in inputs.items() if name.startswith(prefix)}
    audio, video, text = tensors.get("audio"), tensors.get("video"), tensors.get("phones")
    lengths = (~tensors["padding_mask"]).sum(1) if "padding_mask" in tensors else None
    first = next(tensor for tensor in (audio, video, text) if tensor is not None)
    return Batch(
        tuple("abcdefgh"[: len(first)]),
        task,
        None if audio is None else audio.transpose(1, 2),
        None if audio is None else lengths,
        None if video is None else video[:, 0],
        None if video is None else lengths,
        text,
        # The official text path knows no padding.
        None if text is None else torch.full((len(text),), text.shape[1]),
        {"units": tensors["target0"]} if "target0" in tensors else {},
    )


@pytest.fixture(scope="module")
def input_case() -> GoldenCase:
    return read_case("vatlm/pretrain_av_input_mask")


@pytest.fixture(scope="module")
def unified_case() -> GoldenCase:
    return read_case("vatlm/pretrain_unified")


@pytest.fixture(scope="module")
def seq2seq_case() -> GoldenCase:
    return read_case("vatlm/seq2seq")


def given_masks(case: GoldenCase) -> InputMask:
    return InputMask(case.inputs["mask_audio"], case.inputs["mask_video"], case.inputs["video_sub_index"])


def test_every_official_tensor_has_a_place_and_every_tensor_of_ours_is_filled(input_case: GoldenCase) -> None:
    assert set(rename(input_case.state)) == set(VATLM(our_config(input_case.config)).state_dict())


def test_a_foreign_key_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'encoder\.layers\.0\.moe\.weight'"):
        rename({"encoder.layers.0.moe.weight": torch.zeros(1)})
    assert rename_key("decoder.embed_positions._float_tensor") is None


def test_features_of_masked_input_equal_the_official_ones(input_case: GoldenCase) -> None:
    model, out = our_model(input_case), input_case.outputs
    with torch.no_grad():
        fused = model.frontends.join(our_batch(input_case.inputs), given_masks(input_case))
        audio, video, text = fused.joined.chunk(3, -1)
        projected = model.frontends.fuse(fused)
        states = model.encoder.hidden_states(projected, fused.lengths, output_layer=3)
    assert error(audio.transpose(1, 2), out["av.features_audio_BFT"]) < FORWARD
    assert error(video.transpose(1, 2), out["av.features_video_BFT"]) < FORWARD
    assert text.abs().max() == 0
    assert error(model.frontends.fusion.norm(fused.joined), out["av.fused_layer_norm_BTE"]) < FORWARD
    assert error(projected, out["av.post_extract_proj_BTE"]) < FORWARD
    for number, state in enumerate(states[1:]):
        assert error(state.transpose(0, 1), out[f"av.encoder_layer{number}_TBE"]) < FORWARD


def test_loss_and_gradients_of_masked_input_equal_the_official_ones(input_case: GoldenCase) -> None:
    model, out = our_model(input_case), input_case.outputs
    losses = model.masked_losses(our_batch(input_case.inputs), given_masks(input_case))
    masked, penalty = losses["masked_prediction"], losses["feature_penalty"]
    total = masked.value + penalty.value
    assert masked.count == out["av.sample_size"]
    assert masked.value.item() == pytest.approx(out["av.loss_m_0"].item(), rel=LOSS)
    assert masked.logs["masked_accuracy"][0] == out["av.correct_m_0"]
    assert penalty.logs["feature_penalty"][0].item() == pytest.approx(out["av.features_pen"].item(), rel=LOSS)
    assert total.item() == pytest.approx(out["av.loss"].item(), rel=LOSS)
    total.backward()
    check_gradients(dict(model.named_parameters()), out, "av.grad.")


def check_gradients(parameters: dict[str, torch.nn.Parameter], out: dict[str, Tensor], prefix: str, mask_audio: bool = True) -> None:
    official = {key.removeprefix(prefix): tensor for key, tensor in out.items() if key.startswith(prefix)}
    assert official
    for key, gradient in official.items():
        name = rename_key(key, mask_audio)
        assert name is not None
        assert gradient_error(parameters[name].grad, gradient) < GRADIENT, key


def test_weight_on_visible_frames_adds_the_official_unmasked_loss(input_case: GoldenCase) -> None:
    case = input_case
    model = VATLM(replace(our_config(case.config), visible_weight=1.0))
    model.load_state_dict(rename(case.state))
    loss = model.eval().masked_losses(our_batch(case.inputs), given_masks(case))["masked_prediction"]
    expected = case.outputs["av.loss_m_0"] + case.outputs["av.loss_u_0"]
    assert loss.value.item() == pytest.approx(expected.item(), rel=LOSS)
    assert loss.count == len(case.outputs["av.target_m_0"]) + len(case.outputs["av.target_u_0"])


@pytest.mark.parametrize(("name", "modality"), [("av", "av"), ("audio", "a"), ("video", "v")])
def test_unmasked_encoding_equals_extract_finetune(input_case: GoldenCase, name: str, modality: str) -> None:
    model = our_model(input_case)
    with torch.no_grad():
        encoded, _ = model.encode(our_batch(input_case.inputs).only(modality))
    assert error(encoded, input_case.outputs[f"extract_finetune.{name}"]) < FORWARD


def test_features_for_clustering_pass_no_final_norm(input_case: GoldenCase) -> None:
    """The last layer's output is taken before the final norm; the official code does the same."""
    model = our_model(input_case)
    with torch.no_grad():
        last, _ = model.encode(our_batch(input_case.inputs).only("a"), output_layer=3)
        whole, _ = model.encode(our_batch(input_case.inputs).only("a"))
    assert torch.equal(model.encoder.norm(last), whole)


PARTS = {"videoaudio": "audio_video", "audiotext": "audio_text", "onlytext": "text", "onlyaudio": "audio"}


def test_four_kinds_of_batches_equal_the_official_ones(unified_case: GoldenCase) -> None:
    model, out = our_model(unified_case), unified_case.outputs
    for part, task in PARTS.items():
        batch = our_batch(unified_case.inputs, f"{part}.", task)
        mask = InputMask(fused=unified_case.inputs[f"{part}.mask_feature"])
        with torch.no_grad():
            joined = model.frontends.join(batch).joined
            frames = out[f"{part}.fused_layer_norm_BTE"].shape[1]
            losses = model.masked_losses(batch, mask)
        fusion = model.frontends.fusion
        assert isinstance(fusion, Fusion)
        assert error(fusion.norm(joined[:, :frames]), out[f"{part}.fused_layer_norm_BTE"]) < FORWARD, part
        if f"{part}.phone_conv_BFT" in out:
            assert error(joined[..., -32:].transpose(1, 2), out[f"{part}.phone_conv_BFT"][..., : joined.shape[1]]) < FORWARD, part
        masked = losses["masked_prediction"]
        assert masked.value.item() == pytest.approx(out[f"total.log.loss_m_{part}_0"].item(), rel=LOSS), part
        assert masked.count == out[f"total.log.count_m_{part}_0"]
        assert masked.logs["masked_accuracy"][0] == out[f"total.log.correct_m_{part}_0"]
        assert losses["feature_penalty"].logs["feature_penalty"][0].item() == pytest.approx(out[f"{part}.features_pen"].item(), rel=LOSS)


def test_total_of_four_kinds_and_its_gradients_equal_the_official_criterion(unified_case: GoldenCase) -> None:
    """The official penalty of the n-th kind counts the hidden frames of kinds 1 to n; ours counts its own. The test restores theirs."""
    model, out = our_model(unified_case), unified_case.outputs
    total, frames = torch.zeros(()), 0
    for part, task in PARTS.items():
        losses = model.masked_losses(
            our_batch(unified_case.inputs, f"{part}.", task), InputMask(fused=unified_case.inputs[f"{part}.mask_feature"])
        )
        masked, penalty = losses["masked_prediction"], losses["feature_penalty"]
        frames += int(masked.count)
        total = total + masked.value + penalty.value / masked.count * frames
    assert frames == out["total.sample_size"]
    assert total.item() == pytest.approx(out["total.loss"].item(), rel=LOSS)
    total.backward()
    check_gradients(dict(model.named_parameters()), out, "total.grad.", mask_audio=False)


def test_encoder_output_of_masked_features_equals_the_official_one(unified_case: GoldenCase) -> None:
    model, out = our_model(unified_case), unified_case.outputs
    seen: list[Tensor] = []
    model.encoder.register_forward_hook(lambda module, args, output: seen.append(output))
    for part, task in PARTS.items():
        batch = our_batch(unified_case.inputs, f"{part}.", task)
        with torch.no_grad():
            model.masked_losses(batch, InputMask(fused=unified_case.inputs[f"{part}.mask_feature"]))
        assert error(seen.pop(), out[f"{part}.encoder_out_BTC"]) < FORWARD, part


def recogniser(case: GoldenCase) -> Recognizer:
    official = case.config
    decoder = DecoderConfig(
        dim=official["decoder_embed_dim"],
        layers=official["decoder_layers"],
        heads=official["decoder_attention_heads"],
        feed_forward_dim=official["decoder_ffn_embed_dim"],
    )
    encoder_config = our_config(official)
    heads = RecognizerConfig(encoder=config.to_dict(encoder_config), ctc_weight=0.0, decoder=decoder, decoding=attention_decoding())
    vocabulary = Vocabulary.tokens([f"t{i:02d}" for i in range(official["vocab"] - 4)])
    model = Recognizer(heads, VATLM(encoder_config), vocabulary)
    missing, unexpected = model.load_state_dict(rename(case.state), strict=False)
    assert not unexpected
    # The fine-tuned file has no pre-training heads.
    head = {"encoder.predictor.units", "encoder.predictor.project.weight", "encoder.predictor.project.bias"}
    assert set(missing) == {"encoder.frontends.audio_mask"} | head
    return model.eval()


def attention_decoding() -> Any:
    from avtlm.recognizer import DecodingConfig

    return DecodingConfig(method="attention")


SEEN = [("av", "av"), ("audio", "a"), ("video", "v")]


@pytest.mark.parametrize(("name", "modality"), SEEN)
def test_fine_tuned_logits_and_loss_equal_the_official_ones(seq2seq_case: GoldenCase, name: str, modality: str) -> None:
    model, out, inputs = recogniser(seq2seq_case), seq2seq_case.outputs, seq2seq_case.inputs
    assert model.decoder is not None
    encoded, lengths = model.encoder.encode(our_batch(inputs).only(modality))  # type: ignore[operator]
    assert torch.equal(shift_right(inputs["target"], EOS, PAD), inputs["prev_output_tokens"])
    logits = model.decoder(inputs["prev_output_tokens"], encoded, lengths)
    loss = seq2seq_loss(logits, inputs["target"], PAD, 0.1)
    kept = ~padding_mask(lengths, encoded.shape[1])
    assert error(encoded[kept], out[f"{name}.encoder_out_TBC"].transpose(0, 1)[kept]) < FORWARD
    told = inputs["target"] != PAD  # behind a sentence's end the official decoder sees other positions; nothing is learned there
    assert error(logits[told], out[f"{name}.logits"][told]) < FORWARD
    assert loss.value.item() == pytest.approx(out[f"{name}.loss_sum"].item(), rel=LOSS)
    assert loss.logs["nll"][0].item() == pytest.approx(out[f"{name}.nll_sum"].item(), rel=LOSS)
    if name == "av":
        loss.value.backward()
        parameters = dict(model.named_parameters())
        # The case was recorded with the gradient scale of pre-training; fine-tuning sets it to 1, and so does ours.
        for key, parameter in parameters.items():
            if key.startswith(("encoder.frontends.video", "encoder.frontends.audio")) and parameter.grad is not None:
                parameter.grad *= seq2seq_case.config["feature_grad_mult"]
        check_gradients(parameters, out, "av.grad.")


@pytest.mark.parametrize(("name", "modality"), SEEN)
@pytest.mark.parametrize(("beam", "lenpen"), [(1, 1.0), (5, 1.0), (5, 0.0)])
def test_beam_search_gives_the_official_n_best_lists(seq2seq_case: GoldenCase, name: str, modality: str, beam: int, lenpen: float) -> None:
    model, out = recogniser(seq2seq_case), seq2seq_case.outputs
    assert model.decoder is not None
    # The official limit is the width of the filter bank where there is audio, and the frames of the padded batch for video alone.
    limit = seq2seq_case.inputs["video"].shape[2] if name == "video" else 104
    with torch.no_grad():
        encoded, lengths = model.encoder.encode(our_batch(seq2seq_case.inputs).only(modality))  # type: ignore[operator]
        options = BeamOptions(beam=beam, nbest=beam, length_penalty=lenpen, max_len_a=0.0, max_len_b=limit)
        found = attention_beam(model.decoder, encoded, lengths, options)
    for row, hypotheses in enumerate(found):
        prefix = f"{name}.beam{beam}_lenpen{lenpen}.utt{row}."
        tokens = [[*h.tokens, EOS] for h in hypotheses]
        official = [[t for t in line if t != PAD] for line in out[prefix + "nbest_tokens"].tolist()]
        assert tokens == official
        scores = torch.tensor([h.score for h in hypotheses])
        assert error(scores, out[prefix + "nbest_score"]) < FORWARD
        assert (
            error(torch.tensor([*hypotheses[0].token_scores, hypotheses[0].components["end"]]), out[prefix + "best_positional_scores"])
            < FORWARD
        )
