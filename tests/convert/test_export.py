"""Model folders go back to official checkpoints: the same weights, keys and dictionaries, in pickles that the old code can load."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import checkpoint, cli, config
from avtlm.convert.container import Container, read_container
from avtlm.convert.export import to_fairseq
from avtlm.convert.fairseq import ConversionError, convert
from avtlm.convert.names.inverse import inverse
from avtlm.convert.names.vatlm import DECODER, ENCODER, IGNORED, official_key, rename_key
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig
from avtlm.nn.transformer import DecoderConfig, EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.recognizer import DecodingConfig, Recognizer, RecognizerConfig
from avtlm.systems.avhubert import AVHubert, AVHubertConfig
from avtlm.systems.vatlm import VATLM, VATLMConfig
from avtlm.text.vocabulary import Vocabulary
from tests.convert.made_checkpoints import fine_tuned, pieces, pretrained, write
from tests.golden_case import ROOT, read_case
from tests.made_model import save_tiny_recognizer

CASE = ROOT / "avhubert/checkpoints"
SIZES = EncoderConfig(dim=16, layers=1, heads=2, feed_forward_dim=16, position_kernel=4, position_groups=2)
LIPS = LipEncoderConfig(stem_channels=4, widths=(4, 4, 4, 4))
AVHUBERT = AVHubertConfig(frontends=FrontEndConfig(lips=LIPS, phones=0), encoder=SIZES, units=6, final_dim=4)
VATLM_TINY = VATLMConfig(frontends=FrontEndConfig(lips=LIPS, phones=46), encoder=SIZES, units=6, final_dim=4)


def made(tmp_path: Path, kind: str) -> tuple[Path, str]:
    """An official file of one kind, and its system."""
    if kind in ("pretrained", "finetuned"):
        return CASE / f"{kind}.pt", "avhubert"
    path = tmp_path / "official.pt"
    if kind == "ctc":
        return write(path, fine_tuned(read_case("avhubert/ctc"), "av_hubert", "ctc")), "avhubert"
    if kind == "vatlm":
        return write(path, pretrained(read_case("vatlm/pretrain_unified"), "vat_hubert")), "vatlm"
    return write(path, fine_tuned(read_case("vatlm/seq2seq"), "vat_hubert", "seq2seq")), "vatlm"


@pytest.mark.parametrize("kind", ["pretrained", "finetuned", "ctc", "vatlm", "vatlm fine-tuned"])
def test_an_official_file_comes_back_with_the_same_weights_and_dictionaries(kind: str, tmp_path: Path) -> None:
    path, system = made(tmp_path, kind)
    there = read_container(path)
    back = read_container(to_fairseq(convert(path, system, tmp_path / "model"), tmp_path / "back.pt"))
    assert set(back.weights) == set(there.weights)
    for key, tensor in there.weights.items():
        ours, theirs = back.weights[key].read(), tensor.read()
        assert ours.dtype == theirs.dtype, key
        # The one tensor that is left out on the way is a dummy, which the official code creates without a value.
        assert torch.equal(ours, theirs) or (IGNORED.fullmatch(key) and ours.shape == theirs.shape), key
    assert (back.name, back.units, back.target, back.subwords) == (there.name, there.units, there.target, there.subwords)


@pytest.mark.parametrize("kind", ["finetuned", "ctc", "vatlm", "vatlm fine-tuned"])
def test_a_folder_that_came_back_becomes_the_same_folder(kind: str, tmp_path: Path) -> None:
    path, system = made(tmp_path, kind)
    first = convert(path, system, tmp_path / "first")
    second = convert(to_fairseq(first, tmp_path / "official2.pt"), system, tmp_path / "second")
    assert {file.name for file in first.iterdir()} == {file.name for file in second.iterdir()}
    for file in first.iterdir():
        if file.name != checkpoint.CARD:
            assert file.read_bytes() == (second / file.name).read_bytes(), file.name


# What the old code sees -----------------------------------------------------------------------------------------------------------------

OLD_CODE = """
import sys, types, torch, sentencepiece
class Dictionary:
    def __len__(self): return len(self.symbols)
    def pad(self): return self.pad_index
    def eos(self): return self.eos_index
    def index(self, symbol): return self.indices.get(symbol, self.unk_index)
class SentencepieceBPE:
    def encode(self, text): return " ".join(self.sp.EncodeAsPieces(text))
for name, kind in (("fairseq.data.dictionary", Dictionary), ("fairseq.data.encoders.sentencepiece_bpe", SentencepieceBPE)):
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    setattr(sys.modules[name], kind.__name__, kind)
state = torch.load(sys.argv[1], map_location="cpu", weights_only=False)
task = state["task_state"]
words = task["target_dictionary"]
pieces = task["s2s_tokenizer"].encode(sys.argv[2].lower())
print([*(words.index(piece) for piece in pieces.split()), words.eos()])
print(len(task["dictionaries"][0]), task["dictionaries"][0].symbols[:6], words.pad(), words.nspecial, words.unk_word, len(words.count))
model = state["cfg"]["model"]
print(state["args"], model["w2v_args"]["model"]["encoder_layers"], type(state["model"]["decoder.embed_tokens.weight"]).__name__)
print(state["cfg"]["task"]["_name"], state["optimizer_history"][-1]["num_updates"], state["extra_state"]["train_iterator"]["epoch"])
"""


def test_fairseqs_own_loader_gets_its_classes_and_plain_torch_tensors(tmp_path: Path) -> None:
    """In a process of its own, with classes under the names of fairseq's and torch's usual unpickler."""
    path = to_fairseq(convert(CASE / "finetuned.pt", "avhubert", tmp_path / "model"), tmp_path / "back.pt")
    script = tmp_path / "old.py"
    script.write_text(textwrap.dedent(OLD_CODE))
    run = subprocess.run([sys.executable, str(script), str(path), "KATO the mire"], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "[4, 14, 13, 6, 5, 2]",
        "24 ['<s>', '<pad>', '</s>', '<unk>', '0', '1'] 1 4 <unk> 60",
        "None 2 Tensor",
        "av_hubert_pretraining 0 1",
    ]


def test_neither_direction_imports_fairseq_or_omegaconf(tmp_path: Path) -> None:
    program = (
        "import sys; from avtlm.convert.fairseq import convert; from avtlm.convert.export import to_fairseq\n"
        f"to_fairseq(convert({str(CASE / 'finetuned.pt')!r}, None, {str(tmp_path / 'model')!r}), {str(tmp_path / 'back.pt')!r})\n"
        "assert not {'fairseq', 'omegaconf', 'hydra'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


# Models of our own ----------------------------------------------------------------------------------------------------------------------


def save_recogniser(folder: Path, system: str = "avhubert", ctc_weight: float = 0.0, **changes: Any) -> Path:
    settings: AVHubertConfig = changes.pop("settings", AVHUBERT if system == "avhubert" else VATLM_TINY)
    vocabulary = changes.pop("vocabulary", pieces(40))
    decoder = changes.pop("decoder", DecoderConfig(dim=16, layers=1, heads=2, feed_forward_dim=16))
    decoding = DecodingConfig("attention" if decoder else "ctc_greedy")
    heads = RecognizerConfig(config.to_dict(settings), ctc_weight, decoder, decoding=decoding, **changes)
    encoder = VATLM(settings) if isinstance(settings, VATLMConfig) else AVHubert(settings)
    model = Recognizer(heads, encoder, vocabulary)
    card = {"system": system, "task": "recognition", "model": config.to_dict(heads)}
    checkpoint.save_model(folder, model, card, vocabulary)
    return folder


def save_encoder(folder: Path, settings: AVHubertConfig) -> Path:
    system = "vatlm" if isinstance(settings, VATLMConfig) else "avhubert"
    model = VATLM(settings) if isinstance(settings, VATLMConfig) else AVHubert(settings)
    checkpoint.save_model(folder, model, {"system": system, "task": "pretrain", "model": config.to_dict(settings)})
    return folder


POST_NORM = replace(AVHUBERT, encoder=replace(SIZES, norm_first=False), masking="feature", video_mask=AVHUBERT.audio_mask)
SEVERAL = replace(POST_NORM, further_units=(3, 5), separate_projections=True, channel_mask=SpanMaskConfig(0.2, 4, 0))


@pytest.mark.parametrize("settings", [AVHUBERT, VATLM_TINY, POST_NORM, SEVERAL])
def test_an_encoder_trained_here_survives_the_way_there_and_back(settings: AVHubertConfig, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "ours", settings)
    path = to_fairseq(folder, tmp_path / "official.pt")
    assert read_container(path).units == [[str(unit) for unit in range(size)] for size in settings.inventories]
    back = convert(path, None, tmp_path / "back")
    before, after = checkpoint.load_weights(folder), checkpoint.load_weights(back)
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert checkpoint.load_config(back)["model"] == checkpoint.load_config(folder)["model"]


def test_a_recogniser_trained_here_comes_back_without_what_official_files_drop(tmp_path: Path) -> None:
    folder = save_recogniser(tmp_path / "ours", "vatlm")
    path = to_fairseq(folder, tmp_path / "official.pt")
    there = read_container(path)
    assert not [key for key in there.weights if "mask_emb" in key or "label_embs" in key or "final_proj" in key]
    assert there.model["w2v_args"]["model"]["_name"] == "vat_hubert"  # the released files have none and cannot be loaded
    before, after = checkpoint.load_weights(folder), checkpoint.load_weights(convert(path, "vatlm", tmp_path / "back"))
    kept = [name for name in before if not name.startswith("encoder.predictor.") and name != "encoder.frontends.audio_mask"]
    assert all(torch.equal(before[name], after[name]) for name in kept)


REFUSED: dict[str, tuple[Any, str]] = {
    "norms behind the front-ends": (
        lambda folder: save_encoder(folder, replace(AVHUBERT, frontends=replace(AVHUBERT.frontends, feature_norm=True))),
        "no counterpart of frontends.feature_norm = True",
    ),
    "utterance normalisation": (
        lambda folder: save_encoder(folder, replace(AVHUBERT, frontends=replace(AVHUBERT.frontends, audio_normalise="utterance"))),
        "no counterpart of frontends.audio_normalise = utterance",
    ),
    "a smaller lip encoder": (
        lambda folder: save_encoder(folder, replace(AVHUBERT, frontends=replace(AVHUBERT.frontends, lips=replace(LIPS, stem_stride=4)))),
        "no counterpart of frontends.lips.stem_stride = 4",
    ),
    "two heads": (lambda folder: save_recogniser(folder, ctc_weight=0.3), "a CTC head and an attention decoder"),
    "CTC on VATLM": (lambda folder: save_recogniser(folder, "vatlm", 1.0, decoder=None), "VATLM code has no CTC model"),
    "letters": (lambda folder: save_recogniser(folder, vocabulary=Vocabulary.characters(["abc"])), "the official one needs word pieces"),
    "a narrow decoder": (
        lambda folder: save_recogniser(folder, decoder=DecoderConfig(dim=8, layers=1, heads=2, feed_forward_dim=16)),
        "decoder is 8 wide and its encoder 16",
    ),
    "the quickstart's kind": (save_tiny_recognizer, "no counterpart of|VATLM code has no CTC"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_official_code_has_not_got_is_refused_and_nothing_is_written(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, message = REFUSED[kind]
    folder = build(tmp_path / "ours")
    with pytest.raises(ConversionError, match=message):
        to_fairseq(folder, tmp_path / "out/official.pt")
    assert not (tmp_path / "out").exists()
    assert cli.main(["convert", str(folder), "--to", "fairseq", "-o", str(tmp_path / "out/official.pt")]) == 1
    assert "cannot become an official checkpoint" in capsys.readouterr().err


def test_the_command_writes_an_official_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = save_recogniser(tmp_path / "ours"), tmp_path / "official.pt"
    assert cli.main(["convert", str(folder), "--to", "fairseq", "-o", str(out)]) == 0
    told = capsys.readouterr()
    assert told.out == f"checkpoint: {out}\n"
    assert "fixes the widths of the lip encoder" in told.err
    assert isinstance(read_container(out), Container)


# Names ----------------------------------------------------------------------------------------------------------------------------------


def test_names_there_and_back_are_the_same_for_every_stored_model() -> None:
    for case, fine, ctc in (("vatlm/pretrain_unified", False, False), ("avhubert/seq2seq", True, False), ("avhubert/ctc", True, True)):
        for key in read_case(case).state:
            name = rename_key(key)
            if name is not None:
                assert official_key(name, fine, ctc) == key


def test_every_rule_of_the_tables_can_be_turned() -> None:
    for rules in (ENCODER, DECODER):
        assert len(inverse(rules)) == len(rules)
    with pytest.raises(ValueError, match=r"'frontends\.norms\.audio\.weight': the official model has no such tensor"):
        official_key("frontends.norms.audio.weight", fine_tuned=False)
