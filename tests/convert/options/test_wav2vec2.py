"""Options of fairseq and of transformers in our words: every one is honoured or refused."""

from typing import Any

import pytest

from avtlm.convert.options import OptionError, Options, huggingface
from avtlm.convert.options.huggingface import hugging_face
from avtlm.convert.options.wav2vec2 import WITHOUT_EFFECT, convolutions, fairseq
from avtlm.nn.adapters import LengthAdapterConfig
from avtlm.objectives.regression import TargetConfig
from avtlm.systems.data2vec import Data2VecConfig
from avtlm.systems.hubert import HubertConfig
from avtlm.systems.mt4ssl import MT4SSLConfig
from avtlm.systems.wav2vec2 import Wav2Vec2Config
from avtlm.systems.wavlm import WavLMConfig

DROPOUTS = {"dropout_input": 0.1, "dropout_features": 0.1, "feature_grad_mult": 0.1, "encoder_layerdrop": 0.05}
TEACHING = {
    "extractor_mode": "layer_norm",
    "encoder_layerdrop": 0.05,
    "require_same_masks": True,
    "pos_conv_depth": 5,
    "conv_pos": 95,
    "instance_norm_target_layer": True,
    "ema_anneal_end_step": 30000,
}


def translate(system: Any, units: tuple[int, ...] = (), **values: Any) -> Any:
    options = Options(values, "model", WITHOUT_EFFECT)
    settings = fairseq(options, system, units, normalise=system in ("data2vec", "mt4ssl"))
    options.finish()
    return settings


def test_the_released_base_models_are_our_defaults() -> None:
    wav2vec2 = {"quantize_targets": True, "final_dim": 256, "latent_temp": [2.0, 0.5, 0.999995], "loss_weights": [0.1, 10]}
    hubert = {"final_dim": 256, "mask_prob": 0.8, "label_rate": 50, "loss_weights": [10], "untie_final_proj": True, "skip_nomask": False}
    for settings, ours in (
        (translate("wav2vec2", **DROPOUTS, **wav2vec2), Wav2Vec2Config()),
        (translate("hubert", (504,), **DROPOUTS, **hubert), HubertConfig()),
    ):
        assert {**vars(settings.waveform), "project_always": True} == vars(ours.waveform)
        assert settings.waveform.project_always is False  # of equal widths alone, which these are not
        assert settings.encoder == ours.encoder
        assert settings.mask == ours.mask
        for name in ("final_dim", "temperature", "feature_penalty", "feature_gradient_scale", "same_mask_count"):
            assert getattr(settings, name) == getattr(ours, name), name
    assert translate("data2vec", **TEACHING).targets == TargetConfig()
    assert translate("data2vec", **TEACHING).encoder == Data2VecConfig().encoder
    assert translate("mt4ssl", (504,), ce_loss=True, mse_loss=True, **TEACHING).teacher == MT4SSLConfig().teacher


def test_single_options_are_honoured() -> None:
    assert translate("mt4ssl", (9,), mse_loss=False, **TEACHING).regression_weight == 0
    assert translate("mt4ssl", (9,), loss_weights={"classification": 0.5}, **TEACHING).classification_weight == 0.5
    assert translate("hubert", (9, 7), skip_masked=True, pred_nomask_weight=1.0).masked_weight == 0
    assert translate("hubert", (9, 7), untie_final_proj=True).separate_projections
    assert translate("wav2vec2", negatives_from_everywhere=True).negatives_from == "all"
    assert translate("wav2vec2").quantizer is None
    assert translate("wav2vec2", mask_channel_prob=0.5, mask_channel_length=64).channel_mask.length == 64
    wavlm = translate("wavlm", (9,), relative_position_embedding=True, num_buckets=320, max_distance=800, gru_rel_pos=True)
    assert isinstance(wavlm, WavLMConfig)
    assert (wavlm.encoder.relative_buckets, wavlm.encoder.relative_distance) == (320, 800)


def test_quantised_inputs_have_a_quantiser_of_their_own_unless_there_is_one_to_share() -> None:
    own = translate("wav2vec2", quantize_input=True, quantize_targets=True, latent_vars=9)
    assert own.input_quantizer == own.quantizer
    assert not own.shared_quantizer
    shared = translate("wav2vec2", quantize_input=True, quantize_targets=True, same_quantizer=True)
    assert (shared.input_quantizer, shared.shared_quantizer) == (None, True)
    alone = translate("wav2vec2", quantize_input=True, same_quantizer=True, loss_weights=[0.1, 10])
    assert (alone.quantizer, alone.shared_quantizer, alone.diversity_weight) == (None, False, 0.1)
    assert alone.input_quantizer is not None


def test_a_whole_teacher_is_one_of_which_not_even_the_layers_alone_are_averaged() -> None:
    whole = translate("data2vec", **TEACHING, ema_transformer_only=False, ema_layers_only=False, average_top_k_layers=3)
    assert whole.teacher.whole
    assert whole.targets.layers == 12
    assert not translate("data2vec", **TEACHING, ema_transformer_only=False).teacher.whole


def test_more_layers_than_there_are_become_all_and_no_annealing_the_last_decay() -> None:
    few = translate("data2vec", **{**TEACHING, "ema_anneal_end_step": 0}, encoder_layers=3, num_negatives=7, latent_vars=5)
    assert few.targets.layers == 3
    assert few.teacher.decay_at(0, 100) == few.teacher.end_decay


@pytest.mark.parametrize(
    ("system", "values", "message"),
    [
        ("wav2vec2", {"layer_type": "conformer"}, "layer_type is 'conformer'"),
        ("wav2vec2", {"use_adp": True}, "use_adp is True"),
        ("wav2vec2", {"new_option": 1}, "options that avtlm does not know: new_option"),
        ("hubert", {}, "0 inventories of units"),
        ("mt4ssl", {}, "0 inventories of units"),
    ],
)
def test_what_cannot_be_honoured_is_refused(system: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        translate(system, **values)


def test_lists_of_convolutions_are_read_without_running_them() -> None:
    assert convolutions("[(512, 10, 5)] + [(24,3,2)] * 2") == ((512, 10, 5), (24, 3, 2), (24, 3, 2))
    for text in ("__import__('os')", "[(1, 2)]", "[(1,2,3)", "['a', 2, 3]", "[(1, 2, 3.5)]"):
        with pytest.raises(OptionError, match="is no list of"):
            convolutions(text)


@pytest.mark.parametrize("system", ["wav2vec2", "hubert", "wavlm", "data2vec"])
def test_defaults_of_hugging_face_are_the_base_models(system: Any) -> None:
    options = Options({"model_type": system}, "config.json", huggingface.WITHOUT_EFFECT)
    settings = hugging_face(options, system)
    assert (settings.encoder.dim, settings.encoder.layers, settings.waveform.hop) == (768, 12, 320)
    if system == "data2vec":
        assert (settings.encoder.position_kernel // settings.encoder.position_blocks, settings.encoder.position_blocks) == (19, 5)


def test_adapters_and_norms_of_hugging_face_are_honoured_where_the_classes_read_them() -> None:
    def read(system: Any, **values: Any) -> Any:
        return hugging_face(Options(values, "config.json", huggingface.WITHOUT_EFFECT), system)

    assert read("wav2vec2", add_adapter=True, output_hidden_size=32).adapter == LengthAdapterConfig(32)
    assert read("wavlm", add_adapter=True, num_adapter_layers=1, adapter_stride=4).adapter == LengthAdapterConfig(None, 1, 3, 4)
    assert read("data2vec", output_hidden_size=768).adapter is None
    with pytest.raises(OptionError, match="add_adapter is True"):
        read("hubert", add_adapter=True)
    assert read("hubert", adapter_attn_dim=16, do_stable_layer_norm=True).encoder.adapter_dim == 16
    assert read("hubert", adapter_attn_dim=16).encoder.adapter_dim == 0
    assert read("wavlm", adapter_attn_dim=16, do_stable_layer_norm=True).encoder.adapter_dim == 0
    assert read("hubert", conv_pos_batch_norm=True).encoder.position_norm == "batch"
    assert read("data2vec", num_conv_pos_embeddings=1).encoder.position_norm == "layer"
    odd = read("wav2vec2", layer_norm_eps=1e-3, hidden_act="swish", feat_extract_activation="relu")
    assert (odd.encoder.norm_epsilon, odd.waveform.norm_epsilon) == (1e-3, 1e-3)
    assert (odd.encoder.activation, odd.waveform.activation, odd.encoder.position_activation) == ("silu", "relu", "relu")
    assert translate("hubert", (9,), conv_pos_batch_norm=True).encoder.position_norm == "batch"
