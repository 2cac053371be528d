"""SpeechT5 and Speech2C from official files and back. Real files are replayed by tests/test_golden.py."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import checkpoint, config, systems
from avtlm.checkpoint import save_model
from avtlm.convert.container import read_container
from avtlm.convert.export import to_fairseq
from avtlm.convert.fairseq import convert
from avtlm.convert.model import ConversionError
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.speecht5 import speech2c_rules
from avtlm.convert.official_file import container, dictionary, save
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.speech2c import speech2c as speech2c_of
from avtlm.convert.options.speecht5 import fairseq
from avtlm.convert.options.speecht5_official import official_options
from avtlm.convert.speecht5 import PADDING, official_checkpoint
from avtlm.nn.quantize import QuantizerConfig
from avtlm.nn.speaker_head import SpeakerHeadConfig
from avtlm.objectives.infilling import InfillingConfig
from avtlm.objectives.reconstruction import ReconstructionConfig
from avtlm.systems.speecht5 import LossConfig, SpeechT5, SpeechT5Config
from avtlm.text.vocabulary import SPACE, Vocabulary, VocabularyError, load_vocabulary
from tests.systems.sequence_models import SPEECH2C, SPEECHT5, batch, speech2c, speecht5

SYMBOLS = ["\u2581", *"abcde"]  # with special symbols, <mask> and the blank 12


def official_file(folder: Path, model: SpeechT5, **changes: Any) -> Path:
    content = official_checkpoint(model.config, model.state_dict())
    for values in (content["cfg"]["model"], content["cfg"]["task"]):
        vars(values).update(changes)
    return save(content, folder / "official.pt")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ctc_head": "tied", "codebook": None, "units": 0, "task": "recognition"},
        {"task": "speaker", "speakers": 9},
        {"shared_embedding": False, "decoder": replace(SPEECHT5.decoder, tie_embeddings=False), "ctc_head": "tied"},
        {"task": "speaker", "speakers": 9, "pooling": "encoder", "speaker_head": SpeakerHeadConfig(True, 6, True)},
        {"task": "speaker", "speakers": 9, "pooling": "first", "speaker_head": SpeakerHeadConfig(pooled_norm=True)},
        {"codebook": replace(SPEECHT5.codebook or QuantizerConfig(), depth=3), "memory_layer": 1},
        {"spectrogram": replace(SPEECHT5.spectrogram, voice_place="add"), "decoder": replace(SPEECHT5.decoder, positions="none")},
        {"spectrogram": replace(SPEECHT5.spectrogram, voice_place="concat"), "losses": LossConfig(hidden=0.5, visible=0.25, units=0.7)},
        {"task": "generation"},
        {"task": "generation", "spectrogram": replace(SPEECHT5.spectrogram, reduction=1, reads="source", writes="mask")},
        {"task": "generation", "spectrogram": replace(SPEECHT5.spectrogram, reduction=1, writes="difference", postnet_layers=0)},
        {"task": "speaker", "leading_symbol": True, "speakers_in_text": True, "scaled_positions": False, "shuffle_frames": True},
        {
            "spectrogram": replace(SPEECHT5.spectrogram, postnet_norm=False, scaled_positions=False),
            "decoder": replace(SPEECHT5.decoder, embedding_norm=True),
            "infilling": InfillingConfig(mean_span=0.0, trace="nothing", inserted=0.1, permuted=0.5, rotated=0.2),
            "losses": LossConfig(reconstruction=ReconstructionConfig(average="rows")),
        },
        {"vocabulary": 612, "infilling": InfillingConfig(numbered=600)},
    ],
)
def test_a_model_comes_back_from_its_official_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = speecht5(**changes)
    folder = convert(official_file(tmp_path, model), None, tmp_path / "model")
    back, _ = systems.load_encoder(folder)
    assert isinstance(back, SpeechT5)
    state = back.state_dict()
    assert set(state) == set(model.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    one = batch("wave", row=0)
    with torch.no_grad():
        torch.testing.assert_close(back.encode(one)[0], model.encode(one)[0])  # without padding the official rules change nothing
    assert back.config.compute_padding
    assert PADDING in (folder / "README.md").read_text()
    again = read_container(to_fairseq(folder, tmp_path / "again.pt"))
    first = read_container(tmp_path / "official.pt")
    assert set(again.weights) == set(first.weights)
    assert all(torch.equal(again.weights[key].read(), tensor.read()) for key, tensor in first.weights.items())


@pytest.mark.parametrize(
    ("kept", "reads", "writes", "gone"),
    [
        ("s2s", "speech", "speech", ("text_", "encoder.proj.", "hubert_layer.", "quantizer.")),
        ("t2s", "text", "speech", ("speech_encoder_", "text_decoder_", "encoder.proj.", "hubert_layer.", "quantizer.")),
        (
            "s2c",
            "speech",
            "text",
            ("text_encoder_", "speech_decoder_", "text_decoder_postnet.", "encoder.proj.", "hubert_layer.", "quantizer."),
        ),
    ],
)
def test_a_file_may_hold_the_nets_of_its_task_alone(tmp_path: Path, kept: str, reads: str, writes: str, gone: tuple[str, ...]) -> None:
    task = {"task": "speaker", "speakers": 9} if kept == "s2c" else {"task": "generation"}
    model = speecht5(**task)
    file = official_file(tmp_path, model, t5_task=kept, modules_filter=kept)
    content = torch.load(file, weights_only=False)
    content["model"] = {key: tensor for key, tensor in content["model"].items() if not key.startswith(gone)}
    back, _ = systems.load_encoder(convert(save(content, file), None, tmp_path / "model"))
    assert (back.config.inputs, back.config.outputs, back.config.ctc_head) == ((reads,), (writes,), "none")  # type: ignore[union-attr]
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in back.state_dict().items())
    one = batch("wave" if reads == "speech" else "text", row=0)
    with torch.no_grad():
        torch.testing.assert_close(back.encode(one)[0], model.encode(one)[0])


def test_large_models_keep_their_norms_of_distances(tmp_path: Path) -> None:
    model = speecht5(
        encoder=replace(SPEECHT5.encoder, norm_first=True),
        decoder=replace(SPEECHT5.decoder, norm_first=True),
        waveform=replace(SPEECHT5.waveform, norm="layer"),
    )
    assert any(name.endswith("distance_norm.weight") for name in model.state_dict())
    # The code of large models leaves encoder_normalize_before false, which nothing reads.
    file = official_file(tmp_path, model, encoder_normalize_before=False)
    back, _ = systems.load_encoder(convert(file, "speecht5", tmp_path / "model"))
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    text = batch("text", row=0)
    with torch.no_grad():
        torch.testing.assert_close(back.encode(text)[0], model.encode(text)[0])  # type: ignore[operator]


def test_a_dictionary_beside_the_file_becomes_the_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_text("".join(f"{symbol} 1\n" for symbol in SYMBOLS), encoding="utf-8")
    file = official_file(tmp_path, speecht5())
    folder = convert(file, None, tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    vocabulary = load_vocabulary(folder)
    assert isinstance(vocabulary, Vocabulary)
    assert vocabulary.symbols[4:] == [SPACE, *"abcde", "<mask>", "<ctc_blank>"]
    assert vocabulary.decode(vocabulary.encode("bad cab")) == "bad cab"
    (tmp_path / "dict.txt").write_text("a 1\nb 1\n", encoding="utf-8")
    with pytest.raises(ConversionError, match="has 8 symbols with <mask> and the blank, but the model 12"):
        convert(file, None, tmp_path / "other", vocabulary=tmp_path / "dict.txt")
    assert not (tmp_path / "other").exists()


def test_how_speech_ends_is_noted(tmp_path: Path) -> None:
    folder = convert(official_file(tmp_path, speecht5(task="generation"), t5_task="s2s"), None, tmp_path / "model")
    assert checkpoint.load_decoding(folder) == {"threshold": 0.5, "stop": "any", "longest": 10.0, "shortest": 0.0, "end_symbol": False}
    assert "avtlm convert-voice SOUND --model FOLDER --voice FILE -o FILE" in (folder / "README.md").read_text()
    assert "avtlm synthesize" not in (folder / "README.md").read_text()  # without a vocabulary
    folder = convert(official_file(tmp_path, speecht5(task="generation"), t5_task="t2s"), None, tmp_path / "model")
    assert checkpoint.load_decoding(folder)["longest"] == 20.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_conv_pos": False}, "use_conv_pos is False; avtlm knows only True"),
        ({"se_predict": "sum"}, "se_predict is 'sum'; avtlm knows none, target, masking, delta"),
        ({"t5_task": "s2s", "se_predict": "delta"}, "writes difference, reduction 2; it has to be 1 then"),
        ({"spk_embed_integration_type": "mix"}, "spk_embed_integration_type is 'mix'; avtlm knows pre, add, concat"),
        ({"encoder_layers": 3}, "missing (encoder.layers.2"),
        ({"t5_task": "t2c"}, "t5_task is 't2c'; avtlm knows pretrain, s2t, t2s, s2s, s2c"),
        ({"sample_rate": 8000}, "sample_rate is 8000"),
    ],
)
def test_what_cannot_be_honoured_is_named_and_nothing_is_written(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(official_file(tmp_path, speecht5(), **changes), None, tmp_path / "model")
    assert reason.replace("missing (", "") in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_another_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"holds SpeechT5 .* not HuBERT; convert it with --system speecht5"):
        convert(official_file(tmp_path, speecht5()), "hubert", tmp_path / "model")


def test_a_model_for_recognition_transcribes_once_it_has_a_vocabulary(tmp_path: Path) -> None:
    file = official_file(tmp_path, speecht5(task="recognition"))
    folder = convert(file, None, tmp_path / "bare")
    assert "avtlm transcribe" not in (folder / "README.md").read_text()
    with pytest.raises(VocabularyError, match=r"vocabulary\.json is missing; convert it again with --vocabulary dict\.txt"):
        systems.load(folder)
    (tmp_path / "dict.txt").write_text("".join(f"{symbol} 1\n" for symbol in SYMBOLS), encoding="utf-8")
    folder = convert(file, None, tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    assert "avtlm transcribe FILE --model FOLDER" in (folder / "README.md").read_text()
    settings = checkpoint.load_decoding(folder)
    assert (settings["method"], settings["max_length_ratio"], settings["max_length_extra"]) == ("attention", 0.0, 620.0)
    opened = systems.load(folder)
    [found] = opened.transcribe_batch(batch("wave", row=0), replace(opened.decoding, max_length_extra=4.0))
    assert len(found.hypotheses[0].tokens) <= 4


def test_models_of_one_kind_of_input_have_no_official_file(tmp_path: Path) -> None:
    model = speecht5(inputs=("text",), outputs=("speech",), ctc_head="none", units=0, codebook=None, task="generation")
    save_model(tmp_path / "model", model, {"system": "speecht5", "task": "generation", "model": config.to_dict(model.config)})
    with pytest.raises(ConversionError, match="official models have all their nets"):
        to_fairseq(tmp_path / "model", tmp_path / "official.pt")


def test_the_file_holds_the_options_of_its_run_as_the_official_trainer_writes_them(tmp_path: Path) -> None:
    content = official_checkpoint(speecht5().config, speecht5().state_dict())
    assert isinstance(content["cfg"]["model"], argparse.Namespace)
    assert content["cfg"]["model"].use_codebook
    assert official_options(SpeechT5Config())["latent_temp"] == "(2.0, 0.5, 0.999995)"


def test_speech2c_comes_from_its_official_file(tmp_path: Path) -> None:
    # Official distances are fixed: 160 frames, 24 units.
    model = speech2c(encoder=replace(SPEECH2C.encoder, key_distance=160), decoder=replace(SPEECH2C.decoder, key_distance=24))
    values = {
        "_name": "speech2c",
        "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
        **{"encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2},
        **{"decoder_layers": 2, "decoder_embed_dim": 16, "decoder_ffn_embed_dim": 16, "decoder_attention_heads": 2},
        **{"final_dim": 4, "conv_pos": 4, "conv_pos_groups": 2, "use_rel_pos_enc": True, "label_rate": 50.0},
    }
    state = {find_key(speech2c_rules(), name): tensor for name, tensor in model.state_dict().items()}
    cfg = {"model": values, "task": {"sample_rate": 16000}, "criterion": {"loss_weights": [10.0], "dec_weight": 0.5}}
    units = ["<s>", "<pad>", "</s>", "<unk>", "0", "1", "2"]
    file = save(container(cfg, state, {"dictionaries": [dictionary(units)]}), tmp_path / "official.pt")
    folder = convert(file, None, tmp_path / "model")
    back, _ = systems.load_encoder(folder)
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert (folder / "units.txt").read_text().split() == units
    assert back.config.decoder_weight == 0.5  # type: ignore[union-attr]
    with pytest.raises(ConversionError, match="no official checkpoints that avtlm writes"):
        to_fairseq(folder, tmp_path / "again.pt")


@pytest.mark.parametrize(("encoder_first", "decoder_first", "tied"), [(True, True, False), (True, False, True), (False, True, False)])
def test_pre_norm_models_of_speech2c_keep_their_norms_of_distances(
    tmp_path: Path, encoder_first: bool, decoder_first: bool, tied: bool
) -> None:
    encoder = replace(SPEECH2C.encoder, key_distance=160, norm_first=encoder_first)
    decoder = replace(SPEECH2C.decoder, key_distance=24, norm_first=decoder_first, tie_embeddings=tied)
    model = speech2c(encoder=encoder, decoder=decoder)
    values = {
        "_name": "speech2c",
        "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
        **{"encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2},
        **{"decoder_layers": 2, "decoder_embed_dim": 16, "decoder_ffn_embed_dim": 16, "decoder_attention_heads": 2},
        **{"final_dim": 4, "conv_pos": 4, "conv_pos_groups": 2, "use_rel_pos_enc": True, "label_rate": 50.0},
        **{"layer_norm_first": encoder_first, "decoder_normalize_before": decoder_first, "share_decoder_input_output_embed": tied},
    }
    rules = speech2c_rules(tied=tied)
    state = {find_key(rules, name): tensor for name, tensor in model.state_dict().items()} | {"decoder.version": torch.full((1,), 3.0)}
    if tied:
        state["decoder.output_projection.weight"] = state["decoder.embed_tokens.weight"]
    for part, first in (("encoder", encoder_first), ("decoder", decoder_first)):  # post-norm layers have them without use
        state |= {} if first else {f"{part}.layers.{layer}.norm_k.weight": torch.ones(8) for layer in range(2)}
    cfg = {"model": values, "task": {"sample_rate": 16000}, "criterion": {"loss_weights": [10.0]}}
    units = ["<s>", "<pad>", "</s>", "<unk>", "0", "1", "2"]
    file = save(container(cfg, state, {"dictionaries": [dictionary(units)]}), tmp_path / "official.pt")
    back, _ = systems.load_encoder(convert(file, None, tmp_path / "model"))
    assert set(back.state_dict()) == set(model.state_dict())
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ce_weight": 0.5}, LossConfig(attention=1.0, ctc=0.0)),  # a loss that stands alone is not weighed there
        ({"ce_weight": 0.0, "ctc_weight": 0.3}, LossConfig(attention=0.0, ctc=1.0)),
        ({"ce_weight": 0.7, "ctc_weight": 0.3}, LossConfig(attention=0.7, ctc=0.3)),
        ({"t5_task": "pretrain", "bce_loss_lambda": 3.0}, LossConfig(attention=1.0, ctc=0.0)),  # read in fine-tuning alone
        ({"loss_weights": [5.0, 0.2, 9.0]}, LossConfig(attention=1.0, ctc=0.0, feature_penalty=5.0, diversity=0.2)),
        ({"loss_weights": [5.0]}, LossConfig(attention=1.0, ctc=0.0, feature_penalty=5.0, diversity=5.0)),
        (
            {"pred_masked_weight": 0.7, "pred_nomask_weight": 0.2, "hubert_weight": 0.6},
            LossConfig(attention=1.0, ctc=0.0, units=0.6, hidden=0.7, visible=0.2),
        ),
        ({"pred_masked_weight": 0.0}, LossConfig(attention=1.0, ctc=0.0, units=0.0)),
        ({"dec_weight": 0.0, "hubert_weight": 0.6}, LossConfig(attention=1.0, ctc=0.0, spectrogram=0.0)),
    ],
)
def test_weights_of_losses_count_as_in_the_official_criterion(options: dict[str, Any], expected: LossConfig) -> None:
    assert fairseq(Options({"t5_task": "s2t", **options}, "cfg.model"), 12).losses == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "frames"), ({"use_masking": False}, "padding"), ({"use_masking": False, "use_weighted_masking": True}, "rows")],
)
def test_frames_of_written_speech_are_averaged_as_the_criterion_says(options: dict[str, Any], expected: str) -> None:
    assert fairseq(Options({"t5_task": "t2s", **options}, "cfg.model"), 12).losses.reconstruction.average == expected


def test_only_speech_from_speech_is_related_to_what_is_heard() -> None:
    options = {"reduction_factor": 1, "se_predict": "masking", "se_decoder_input": "source"}
    found = {task: fairseq(Options({"t5_task": task, **options}, "cfg.model"), 12).spectrogram for task in ("s2s", "t2s")}
    assert (found["s2s"].writes, found["s2s"].reads) == ("mask", "source")
    assert (found["t2s"].writes, found["t2s"].reads) == ("frames", "written")


def test_fairseq_layers_of_the_encoder_have_no_distances() -> None:
    options = {"t5_task": "s2t", "relative_position_embedding": True, "use_sent_enc_layer": False}
    assert fairseq(Options(options, "cfg.model"), 12).encoder.key_distance == 0
    with pytest.raises(OptionError, match="encoder_normalize_before is True; avtlm knows only False"):
        fairseq(Options({**options, "encoder_normalize_before": True}, "cfg.model"), 12)


def test_a_spectrogram_decoder_alone_reads_the_weight_of_the_end() -> None:
    assert fairseq(Options({"t5_task": "t2s", "bce_loss_lambda": 3.0}, "cfg.model"), 12).losses.reconstruction.stop_weight == 3.0


def test_the_learned_positions_and_symbols_of_speech2c_are_counted() -> None:
    settings = speech2c_of(Options({"decoder_learned_pos": True, "max_target_positions": 40, "decoder_dict_size": 6}, "cfg.model"), [9])
    assert (settings.decoder.positions, settings.decoder.max_positions, settings.decoder_vocabulary) == ("learned", 40, 6)
