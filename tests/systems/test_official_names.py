"""AV-HuBERT and VATLM beside what a replay of the stored cases shows: names of tensors, and options that were not recorded."""

from dataclasses import replace

import pytest
import torch

from avtlm.convert.names.vatlm import rename, rename_key
from avtlm.systems.avhubert import AVHubert
from benchmarks.parity import CASES
from benchmarks.replay.avhubert import batch_of, mask_of, pretrained
from benchmarks.replay.case import Case, read_case


@pytest.fixture(scope="module")
def case() -> Case:
    return read_case(CASES / "avhubert" / "pretrain")


@pytest.mark.parametrize(("name", "mask_audio"), [("avhubert/pretrain", True), ("vatlm/pretrain_unified", False)])
def test_every_official_tensor_has_a_place_and_every_tensor_of_ours_is_filled(name: str, mask_audio: bool) -> None:
    stored = read_case(CASES / name)
    assert set(rename(stored.state, mask_audio)) == set(pretrained(stored).state_dict())


def test_a_foreign_key_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'encoder\.layers\.0\.moe\.weight'"):
        rename({"encoder.layers.0.moe.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("decoder.embed_positions._float_tensor", None),
        ("target_glu.0.weight", None),
        ("decoder.embed_positions.weight", "decoder.positions.table.weight"),
        ("decoder.embed_out", "decoder.output.weight"),
        ("w2v_encoder.proj.bias", "ctc.bias"),
        ("w2v_encoder.w2v_model.layer_norm.weight", "encoder.frontends.fusion.norm.weight"),
        ("encoder.w2v_model.encoder.layers.3.fc1.bias", "encoder.encoder.layers.3.feed_forward.expand.bias"),
        ("feature_extractor_audio.encoder.layers.0.fc2.bias", "frontends.audio_encoder.layers.0.feed_forward.contract.bias"),
        ("feature_extractor_video.encoder.layer_norm.bias", "frontends.video_encoder.norm.bias"),
        ("mask_emb", "frontends.audio_mask"),
    ],
)
def test_official_names_have_ours(official: str, ours: str | None) -> None:
    assert rename_key(official) == ours


def test_weight_on_visible_frames_adds_the_official_unmasked_loss(case: Case) -> None:
    model = AVHubert(replace(pretrained(case).config, visible_weight=1.0))
    model.load_state_dict(rename(case.state))
    loss = model.eval().masked_losses(batch_of(case.inputs), mask_of(case.inputs))["masked_prediction"]
    expected = case.outputs["av.loss_m_0"] + case.outputs["av.loss_u_0"]
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.count == len(case.outputs["av.target_m_0"]) + len(case.outputs["av.target_u_0"])


def test_features_for_clustering_pass_no_final_norm(case: Case) -> None:
    """The last layer's output is taken before the final norm; the official code does the same."""
    model, batch = pretrained(case), batch_of(case.inputs).only("a")
    with torch.no_grad():
        last, _ = model.encode(batch, output_layer=3)
        whole, _ = model.encode(batch)
    assert torch.equal(model.encoder.norm(last), whole)


@pytest.mark.parametrize(("name", "mask_audio"), [("avhubert/pretrain", True), ("vatlm/pretrain_unified", False)])
def test_official_weights_load_into_every_expert_and_equal_experts_compute_the_official_model(name: str, mask_audio: bool) -> None:
    stored = read_case(CASES / name)
    plain = pretrained(stored)
    experts = replace(plain.config.encoder, experts=("audio", "video", "text", "joint"), joint_layers=1)
    multipath = type(plain)(replace(plain.config, encoder=experts)).eval()
    multipath.load_state_dict(rename(stored.state, mask_audio))
    inputs = {key.removeprefix("videoaudio."): tensor for key, tensor in stored.inputs.items()}
    for modality in ("av", "a", "v"):
        batch = batch_of(inputs).only(modality)
        with torch.no_grad():
            assert torch.equal(multipath.encode(batch)[0], plain.encode(batch)[0]), modality
