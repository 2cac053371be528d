"""Official checkpoints become model folders with weights, settings and vocabularies as stated; or there is one sentence and no folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from avtlm import checkpoint, cli, systems
from avtlm.convert.container import resolved
from avtlm.convert.fairseq import ConversionError, convert
from avtlm.convert.names.vatlm import rename
from avtlm.convert.pickles import TorchFileError
from avtlm.data.batching import Batch
from avtlm.nn.attention import padding_mask
from avtlm.recognizer import DecodingConfig, Recognizer
from avtlm.systems.avhubert import AVHubert
from avtlm.systems.vatlm import VATLM
from avtlm.text.normalize import lower
from avtlm.text.subwords import Subwords
from avtlm.text.vocabulary import EOS, PAD, SPECIALS, Vocabulary
from tests.convert.made_checkpoints import fine_tuned, pieces, pretrained, units, write
from tests.golden_case import ROOT, GoldenCase, error, read_case

CASE = ROOT / "avhubert/checkpoints"
EXPECTED = json.loads((CASE / "case.json").read_text())["expected"]


@pytest.fixture(scope="module")
def recogniser_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(CASE / "finetuned.pt", "avhubert", tmp_path_factory.mktemp("converted") / "model")


@pytest.fixture(scope="module")
def seq2seq() -> GoldenCase:
    return read_case("avhubert/seq2seq")


@pytest.fixture(scope="module")
def vatlm_seq2seq() -> GoldenCase:
    return read_case("vatlm/seq2seq")


@pytest.fixture(scope="module")
def ctc() -> GoldenCase:
    return read_case("avhubert/ctc")


# What is in a folder --------------------------------------------------------------------------------------------------------------------


def test_a_golden_pretrained_checkpoint_becomes_an_encoder_with_its_weights(tmp_path: Path) -> None:
    folder = convert(CASE / "pretrained.pt", "avhubert", tmp_path / "model")
    model, inputs = systems.load_encoder(folder)
    assert isinstance(model, AVHubert)
    expected = rename(load_file(CASE / "pretrained.safetensors"))
    found = model.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert model.config.units == EXPECTED["km_dictionary_size"]
    assert (inputs.audio_normalise, inputs.video_size) == ("frame", 88)
    assert (folder / "units.txt").read_text().split()[:8] == EXPECTED["km_symbols_head"]
    assert "AV-HuBERT (av_hubert)" in (folder / "README.md").read_text()


def test_a_golden_fine_tuned_checkpoint_becomes_a_recogniser_with_its_weights(recogniser_folder: Path) -> None:
    model = systems.load(recogniser_folder)
    assert isinstance(model, Recognizer)
    found, expected = model.state_dict(), rename(load_file(CASE / "finetuned.safetensors"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert set(found) - set(expected) == {"encoder.predictor.project.weight", "encoder.predictor.project.bias"}
    config = model.config
    assert (config.ctc_weight, config.label_smoothing, config.modality_dropout) == (0.0, 0.1, 0.0)
    assert config.decoding == DecodingConfig("attention", beam=50, length_penalty=1.0, official_length_limit=True)


def test_what_a_fine_tuned_file_lacks_is_zero_and_the_card_says_so(recogniser_folder: Path) -> None:
    weights, card = checkpoint.load_weights(recogniser_folder), (recogniser_folder / "README.md").read_text()
    for name in ("encoder.predictor.project.weight", "encoder.predictor.project.bias"):
        assert not weights[name].any()
        assert name in card
    assert "decoder.embed_positions._float_tensor" in card  # left out


def test_transcripts_become_the_stated_token_ids(recogniser_folder: Path) -> None:
    vocabulary = systems.load(recogniser_folder).vocabulary
    assert len(vocabulary) == EXPECTED["target_dictionary_size"]
    assert vocabulary.symbols[:12] == EXPECTED["target_symbols_head"]
    for text, ids, decoded in zip(EXPECTED["texts"], EXPECTED["token_ids"], EXPECTED["decoded"], strict=True):
        assert [*vocabulary.encode(lower(text)), EOS] == ids
        assert vocabulary.decode(ids) == " ".join(word for word in decoded.split() if word != "<unk>")


def batch(case: GoldenCase) -> Batch:
    audio, video = case.inputs["audio"].transpose(1, 2), case.inputs["video"][:, 0]
    lengths = (~case.inputs["padding_mask"]).sum(1)
    return Batch(tuple("abc"[: len(audio)]), "recognition", audio, lengths, video, lengths)


def best(case: GoldenCase, name: str) -> list[list[int]]:
    found = [case.outputs[f"{name}.beam5_lenpen1.0.utt{row}.nbest_tokens"][0].tolist() for row in range(len(case.inputs["audio"]))]
    return [[token for token in line if token not in (PAD, EOS)] for line in found]


MODALITIES = [("av", "av"), ("audio", "a"), ("video", "v")]


@pytest.mark.parametrize(("name", "modality"), MODALITIES)
@pytest.mark.parametrize("system", ["avhubert", "vatlm"])
def test_transcribing_with_a_converted_model_gives_the_official_tokens(
    system: str, name: str, modality: str, seq2seq: GoldenCase, vatlm_seq2seq: GoldenCase, tmp_path: Path
) -> None:
    case, official = (seq2seq, "av_hubert") if system == "avhubert" else (vatlm_seq2seq, "vat_hubert")
    path = write(tmp_path / "official.pt", fine_tuned(case, official, "seq2seq"))
    model = systems.load(convert(path, system, tmp_path / "model"))
    decoding = DecodingConfig("attention", beam=5, official_length_limit=True)
    found = [hypotheses[0].tokens for hypotheses in model.search(batch(case).only(modality), decoding)]
    assert [list(tokens) for tokens in found] == best(case, name)
    results = model.transcribe_batch(batch(case).only(modality), decoding)
    assert [result.text for result in results] == [model.vocabulary.decode(tokens) for tokens in best(case, name)]


def test_ctc_files_become_recognisers_with_letters(ctc: GoldenCase, tmp_path: Path) -> None:
    model = systems.load(convert(write(tmp_path / "ctc.pt", fine_tuned(ctc, "av_hubert", "ctc")), "avhubert", tmp_path / "model"))
    assert isinstance(model.vocabulary, Vocabulary)
    assert model.vocabulary.spelling == "characters"
    assert (model.config.ctc_weight, model.decoder, model.config.decoding.method) == (1.0, None, "ctc_greedy")
    with torch.no_grad():
        encoded, lengths = model.encoder.encode(batch(ctc))
        valid = ~padding_mask(lengths, encoded.shape[1])
        assert error(model.ctc(encoded).log_softmax(-1)[valid], ctc.outputs["av.lprobs_TBV"].transpose(0, 1)[valid]) < 1e-5


def test_pretrained_vatlm_knows_its_phones(tmp_path: Path) -> None:
    case = read_case("vatlm/pretrain_unified")
    content = pretrained(case, "vat_hubert")
    phones = units(42)
    phones.state["symbols"][4:] = [f"P{number}" for number in range(42)]
    content["task_state"]["phone_dictionary"] = [phones]
    folder = convert(write(tmp_path / "official.pt", content), "vatlm", tmp_path / "model")
    model, _ = systems.load_encoder(folder)
    assert isinstance(model, VATLM)
    assert model.feature_mask is not None  # masking of fused features
    assert torch.equal(model.feature_mask, case.state["mask_emb"])
    assert (folder / "phones.txt").read_text().split() == [*SPECIALS, *(f"P{number}" for number in range(42))]


# VATLM's fine-tuned files say nothing about their encoder -------------------------------------------------------------------------------


def test_without_its_configuration_an_encoder_takes_that_of_the_pretrained_file(vatlm_seq2seq: GoldenCase, tmp_path: Path) -> None:
    path = write(tmp_path / "official.pt", fine_tuned(vatlm_seq2seq, "vat_hubert", "seq2seq", w2v_args=False))
    origin = write(tmp_path / "origin.pt", pretrained(vatlm_seq2seq, "vat_hubert"))
    with pytest.raises(ConversionError, match=r"width 32 is that of no released model.*--pretrained"):
        convert(path, "vatlm", tmp_path / "model")
    model = systems.load(convert(path, "vatlm", tmp_path / "model", pretrained=origin))
    found = [list(hypotheses[0].tokens) for hypotheses in model.search(batch(vatlm_seq2seq), DecodingConfig("attention", beam=5))]
    assert found == best(vatlm_seq2seq, "av")
    filled = (tmp_path / "model/README.md").read_text()
    for name in ("predictor.units", "predictor.project.weight", "frontends.audio_mask"):
        assert f"encoder.{name}" in filled
        assert not model.state_dict()[f"encoder.{name}"].any()


def test_the_sizes_of_released_models_are_read_off_their_shapes() -> None:
    from avtlm.convert.names.vatlm import official_key
    from avtlm.convert.options import OptionError, Options
    from avtlm.convert.options.avhubert import encoder, released_options
    from avtlm.nn.transformer import EncoderConfig
    from avtlm.systems.vatlm import VATLMConfig

    for sizes in (EncoderConfig(), EncoderConfig(1024, 24, 16, 4096)):
        with torch.device("meta"):
            state = VATLM(VATLMConfig(encoder=sizes)).state_dict()
        shapes = {official_key(name, fine_tuned=False): tuple(tensor.shape) for name, tensor in state.items()}
        found = encoder(Options(released_options(shapes), "weights"), text=True, units=4, phones=46)
        for name in ("dim", "layers", "heads", "feed_forward_dim", "norm_first", "activation", "position_kernel", "position_groups"):
            assert getattr(found.encoder, name) == getattr(sizes, name)
        assert found.frontends.lips == VATLMConfig().frontends.lips
        assert (found.frontends.fusion, found.final_dim) == ("concat", 256)
    with pytest.raises(OptionError, match="no encoder of AV-HuBERT"):
        released_options({"weight": (3,)})


# Vocabularies ---------------------------------------------------------------------------------------------------------------------------


def test_a_vocabulary_that_the_file_lacks_can_be_given(seq2seq: GoldenCase, tmp_path: Path) -> None:
    content = fine_tuned(seq2seq, "av_hubert", "seq2seq")
    content["task_state"].pop("s2s_tokenizer")
    path, given = write(tmp_path / "official.pt", content), tmp_path / "spm.model"
    with pytest.raises(ConversionError, match="word pieces without their SentencePiece model; name that with --vocabulary"):
        convert(path, None, tmp_path / "model")
    given.write_bytes(pieces(seq2seq.config["vocab"]).serialised)
    model = systems.load(convert(path, None, tmp_path / "model", vocabulary=given))
    assert isinstance(model.vocabulary, Subwords)
    del content["task_state"]["target_dictionary"]
    with pytest.raises(ConversionError, match="holds no dictionary of the transcripts"):
        convert(write(path, content), None, tmp_path / "other")


def test_a_given_dictionary_of_letters_serves_ctc(ctc: GoldenCase, tmp_path: Path) -> None:
    content = fine_tuned(ctc, "av_hubert", "ctc")
    del content["task_state"]["target_dictionary"]
    given = tmp_path / "dict.ltr.txt"
    given.write_text("".join(f"{letter} 1\n" for letter in "|abcdefghijklmnopqr"))
    model = systems.load(convert(write(tmp_path / "ctc.pt", content), None, tmp_path / "model", vocabulary=given))
    assert model.vocabulary.decode([5, 6, 4, 7]) == "ab c"


# Refusals -------------------------------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], Any]


def _without(key: str) -> Change:
    return lambda content: content["model"].pop(key)


def _model(**options: Any) -> Change:
    return lambda content: content["cfg"]["model"].update(options)


REFUSALS: dict[str, tuple[Change, str]] = {
    "missing tensors are listed by their official names": (
        lambda content: [content["model"].pop(key) for key in ("post_extract_proj.bias", "encoder.layers.1.fc1.weight")],
        r"2 missing \(post_extract_proj\.bias, encoder\.layers\.1\.fc1\.weight\)",
    ),
    "unknown tensors are listed": (
        lambda content: content["model"].update({"encoder.moe.weight": torch.ones(1), "zebra": torch.ones(2)}),
        r"2 unknown \(encoder\.moe\.weight, zebra\)",
    ),
    "tensors of another shape are listed": (
        lambda content: content["model"].update({"layer_norm.weight": torch.ones(3)}),
        r"1 of another shape \(layer_norm\.weight \[3\] instead of \[64\]\)",
    ),
    "unknown options are listed": (_model(zebra=1), r"cfg\.model: options that avtlm does not know: zebra"),
    "an option that we cannot honour": (_model(modality_fuse="gate"), "modality_fuse is 'gate'"),
    "another model": (_model(_name="wav2vec_seq2seq"), "holds a model of the kind 'wav2vec_seq2seq'"),
    "a dictionary of units of another size": (
        lambda content: content["task_state"].update(dictionaries=[units(21)]),
        "dictionary of the units has 25 symbols, but the head predicts 24",
    ),
    "dictionaries of more units than there are": (
        lambda content: content["task_state"].update(dictionaries=[units(20), units(3)]),
        r"dictionary of the units has 24 \+ 7 symbols, but the head predicts 24",
    ),
    "other grey values": (lambda content: content["cfg"]["task"].update(image_mean=0.5), r"cfg\.task: image_mean is 0\.5"),
    "other crops": (lambda content: content["cfg"]["task"].update(image_crop_size=96), r"cfg\.task: image_crop_size is 96"),
    "no configuration": (lambda content: content.update(cfg=None), "from before 2021"),
    "no weights": (lambda content: content.update(model={}), "should hold tensors only, but it is empty"),
    "weights that are none": (lambda content: content["model"].update(x=3), "should hold tensors only, but x"),
    "another file of torch": (lambda content: content.pop("cfg"), "no checkpoint of fairseq: it has no 'model' and 'cfg'"),
    "a group that is none": (lambda content: content["cfg"].update(task=3), r"cfg\.task is 3, no group"),
    "a dictionary that is none": (lambda content: content["task_state"].update(dictionaries=[3]), "does not list its symbols"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_pretrained_file_is_refused_in_one_sentence_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    case = read_case("avhubert/pretrain")
    content = pretrained(case, "av_hubert")
    change, message = REFUSALS[name]
    change(content)
    path = write(tmp_path / "official.pt", content)
    with pytest.raises((ConversionError, TorchFileError), match=message) as caught:
        convert(path, "avhubert", tmp_path / "out/model")
    assert "official.pt" in str(caught.value)
    assert not (tmp_path / "out").exists()


FINE_TUNED_REFUSALS: dict[str, tuple[Change, str]] = {
    "another head than the dictionary": (
        lambda content: content["model"].update({"decoder.embed_tokens.weight": torch.ones(39, 32)}),
        "dictionary of the transcripts has 40 symbols, but the head writes 39",
    ),
    "another dictionary than the pieces": (
        lambda content: content["task_state"]["target_dictionary"].state["symbols"].__setitem__(7, "x"),
        r"differ from symbol 7 on",
    ),
    "a shorter dictionary than the pieces": (
        lambda content: content["task_state"]["target_dictionary"].state["symbols"].pop(),
        r"\(39 symbols\) and the SentencePiece model \(40 pieces\) differ from symbol 39",
    ),
    "a tokenizer that is none": (lambda content: content["task_state"].update(s2s_tokenizer={"a": 1}), "no SentencePiece tokenizer"),
    "pieces that are none": (
        lambda content: content["task_state"]["s2s_tokenizer"].state["sp"].__init__(b"hello"),
        "not a SentencePiece model",
    ),
    "a missing decoder layer": (_without("decoder.layers.1.fc1.bias"), r"1 missing \(decoder\.layers\.1\.fc1\.bias\)"),
    "an option of fine-tuning": (_model(adapters=1), "does not know: adapters"),
    "an option of the encoder": (
        lambda content: content["cfg"]["model"]["w2v_args"]["model"].update(adapters=1),
        "does not know: adapters",
    ),
    "no configuration of the encoder": (_model(w2v_args="x"), "w2v_args is 'x', no configuration"),
}


@pytest.mark.parametrize("name", FINE_TUNED_REFUSALS)
def test_fine_tuned_file_is_refused_in_one_sentence_and_nothing_is_written(name: str, seq2seq: GoldenCase, tmp_path: Path) -> None:
    content = fine_tuned(seq2seq, "av_hubert", "seq2seq")
    change, message = FINE_TUNED_REFUSALS[name]
    change(content)
    with pytest.raises((ConversionError, TorchFileError), match=message):
        convert(write(tmp_path / "official.pt", content), "avhubert", tmp_path / "out/model")
    assert not (tmp_path / "out").exists()


def test_a_refused_conversion_leaves_an_older_model_alone(recogniser_folder: Path, tmp_path: Path) -> None:
    folder = convert(CASE / "pretrained.pt", None, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConversionError, match="not VATLM"):
        convert(CASE / "finetuned.pt", "vatlm", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_options_for_fine_tuned_files_are_refused_for_pretrained_ones(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="this is a pre-trained model; --pretrained and --vocabulary are for fine-tuned ones"):
        convert(CASE / "pretrained.pt", None, tmp_path / "model", pretrained=CASE / "pretrained.pt")
    with pytest.raises(ConversionError, match=r"finetuned\.pt holds 'av_hubert_seq2seq', no pre-trained model of AV-HuBERT"):
        convert(CASE / "finetuned.pt", None, tmp_path / "model", pretrained=CASE / "finetuned.pt")


def test_references_in_a_configuration_are_followed() -> None:
    cfg = {
        "task": {"normalize": True, "label_rate": "${model.label_rate}"},
        "model": {"label_rate": 25, "normalize": "${task.normalize}", "lost": "${task.nothing}", "loop": "${model.loop}"},
    }
    found = resolved({**cfg, "model": {**cfg["model"], "w2v_args": cfg | {"task": {"normalize": False}}}})
    assert found["task"]["label_rate"] == 25
    assert found["model"]["normalize"] is True
    assert found["model"]["lost"] == found["model"]["loop"] == "???"
    assert found["model"]["w2v_args"]["model"]["normalize"] is False


# The command line -----------------------------------------------------------------------------------------------------------------------


def test_the_command_converts_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert cli.main(["convert", str(CASE / "finetuned.pt"), "--system", "avhubert", "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"model: {out}\n"
    assert isinstance(systems.load(out), Recognizer)
    assert cli.main(["info", str(out)]) == 0
    assert "avhubert" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([str(CASE / "finetuned.pt"), "--system", "vatlm"], 1, "holds AV-HuBERT (av_hubert_seq2seq), not VATLM"),
        ([str(CASE / "case.json")], 1, "truncated, damaged or no checkpoint of torch"),
        (["nowhere.pt"], 1, "nowhere.pt: No such file or directory."),
        ([str(CASE)], 2, "add --to fairseq"),
        ([str(CASE), "--to", "fairseq", "--system", "vatlm"], 2, "are for reading a .pt file"),
    ],
)
def test_the_command_says_in_one_sentence_what_is_wrong(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert", *arguments, "-o", str(tmp_path / "out")]) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]
    assert "unexpected" not in told[0]
    assert not (tmp_path / "out").exists()
