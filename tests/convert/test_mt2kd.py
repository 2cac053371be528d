"""Checkpoints of icefall: sizes by shapes, heads, word pieces, averages, and the way back."""

import io
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from torch import Tensor

from avtlm import cli, systems
from avtlm.checkpoint import load_config, load_weights
from avtlm.convert.fairseq import convert
from avtlm.convert.model import ConversionError
from avtlm.convert.mt2kd import model_config, to_icefall
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.mt2kd import COPIES, names
from avtlm.convert.options import OptionError
from avtlm.convert.sentencepieces import with_own_specials
from avtlm.nn.zipformer import MEDIUM
from avtlm.systems.mt2kd import MT2KD, JoinerConfig, MT2KDConfig
from avtlm.text.subwords import Subwords
from tests.made_model import save_tiny_recognizer
from tests.systems.heard_models import sounds, tiny_config

SENTENCES = ("one two three four", "five six seven eight nine", "zero one oh two", "three nine five one")
PIECES = 24


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As icefall's recipes train their word pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=written,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=1.0,
        user_defined_symbols=["<blk>", "<sos/eos>"],
        unk_id=2,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("lang") / "bpe.model"
    path.write_bytes(written.getvalue())
    return path


def official(settings: MT2KDConfig, prefix: str = "") -> tuple[MT2KD, dict[str, Tensor]]:
    """A model whose vocabulary is the official one, and its state as icefall saves it."""
    torch.manual_seed(0)
    model = MT2KD(settings).eval()
    state: dict[str, Tensor] = OrderedDict()
    for name, tensor in model.state_dict().items():
        state[find_key(names(settings.encoder), name)] = tensor
    if settings.task == "transcription":
        state |= {
            copy + key.removeprefix(first): state[key] for copy, first in COPIES.items() for key in list(state) if key.startswith(first)
        }
    for number, (layers, dim, factor) in enumerate(
        zip(settings.encoder.layers, settings.encoder.dims, settings.encoder.downsampling, strict=True)
    ):
        stack = f"encoder.encoders.{number}" + (".encoder" if factor > 1 else "")
        state |= {f"{stack}.layers.{layer}.bypass_scale": torch.full((dim,), 0.5) for layer in range(layers)}
    return model, {prefix + key: tensor for key, tensor in state.items()}


def second_stage(**changes: Any) -> MT2KDConfig:
    return tiny_config(vocabulary=PIECES, tags=5, speakers=3, voice_dim=192, transducer=JoinerConfig(dim=8, joint_dim=8), **changes)


def test_word_pieces_keep_their_spelling_one_place_further(bpe: Path) -> None:
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(bpe))
    ours = Subwords(with_own_specials(bpe.read_bytes()))
    assert len(ours) == PIECES + 1
    assert ours.symbols[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    for sentence in (*SENTENCES, "six oh nine"):
        assert ours.encode(sentence) == [index + 1 for index in theirs.encode(sentence)]
        assert ours.decode(ours.encode(sentence)) == sentence
    for wrong in (b"\x00\x01", b"", ours.serialised):
        with pytest.raises(OptionError, match="vocabulary"):
            with_own_specials(wrong)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_model_of_stage_2_gives_the_same_and_writes_with_its_pieces(tmp_path: Path, bpe: Path, prefix: str) -> None:
    model, state = official(second_stage(), prefix)
    torch.save({"model": state, "optimizer": {"state": {}}, "best_train_loss": 1.0}, tmp_path / "epoch-1.pt")
    folder = convert(tmp_path / "epoch-1.pt", "mt2kd", tmp_path / "ours", vocabulary=bpe)
    made, vocabulary = systems.load_whole(folder, "transcription")
    assert vocabulary is not None
    assert isinstance(made, MT2KD)
    assert (made.config.vocabulary, made.config.speakers, made.config.tags, made.config.speaker_stack) == (PIECES + 1, 3, 5, None)
    assert made.config.encoder.compute_padding
    assert made.config.relative_lengths
    batch = sounds(0.9)
    with torch.no_grad():
        one, two = model.hear(batch), made.hear(batch)
        torch.testing.assert_close(one.frames, two.frames)
        torch.testing.assert_close(model.tag_logits(one), made.tag_logits(two))
        tokens = torch.tensor([[5, 9, 3]])
        assert model.transducer is not None
        assert made.transducer is not None
        theirs, ours = model.transducer(one.frames, tokens), made.transducer(two.frames, tokens + 1)
        torch.testing.assert_close(ours[..., 2:], theirs[..., 1:])
        torch.testing.assert_close(ours[..., 0], theirs[..., 0])
        assert bool((ours[..., 1] < -1000).all())


def test_the_way_back_gives_the_same_file(tmp_path: Path, bpe: Path) -> None:
    _, state = official(second_stage())
    torch.save({"model": state}, tmp_path / "there.pt")
    folder = convert(tmp_path / "there.pt", None, tmp_path / "ours", vocabulary=bpe)
    assert cli.main(["convert", str(folder), "--to", "icefall", "-o", str(tmp_path / "back.pt")]) == 0
    back = torch.load(tmp_path / "back.pt", weights_only=True)["model"]
    assert {key for key in state if key not in back} == set()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_a_model_of_stage_1_becomes_one_to_fine_tune(tmp_path: Path) -> None:
    model, state = official(tiny_config(task="pretrain", vocabulary=0, tags=5, voice_dim=192, speech_width=20))
    average = {key: tensor.double() + 1 if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    torch.save({"model": state, "model_avg": average}, tmp_path / "checkpoint-1.pt")
    folder = convert(tmp_path / "checkpoint-1.pt", None, tmp_path / "ours")
    assert load_config(folder)["task"] == "pretrain"
    encoder, _ = systems.load_encoder(folder)
    assert encoder.config.speech_width == 20  # type: ignore[union-attr]
    weights = load_weights(folder)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    averaged = load_weights(convert(tmp_path / "checkpoint-1.pt", None, tmp_path / "averaged", averaged=True))
    torch.testing.assert_close(averaged["tagging.bias"], weights["tagging.bias"] + 1)


def test_a_tagger_alone_says_what_it_lacks(tmp_path: Path) -> None:
    _, state = official(tiny_config(vocabulary=0, tags=5))
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(("ecapa", "beats", "audio_tagging"))}
    kept |= {f"classifier.1.{part}": state[f"beats_decoder.1.{part}"] for part in ("weight", "bias")}
    torch.save({"model": kept}, tmp_path / "pretrained.pt")
    folder = convert(tmp_path / "pretrained.pt", None, tmp_path / "ours")
    assert "never knows voices" in (folder / "README.md").read_text()
    assert load_config(folder)["task"] == "transcription"


def test_what_does_not_fit_is_said_in_one_sentence(tmp_path: Path, bpe: Path) -> None:
    _, state = official(second_stage())
    path = tmp_path / "epoch.pt"
    torch.save({"model": state}, path)
    with pytest.raises(ConversionError, match=r"name the recipe's bpe\.model with --vocabulary"):
        convert(path, None, tmp_path / "ours")
    with pytest.raises(ConversionError, match="not HuBERT; convert it with --system mt2kd"):
        convert(path, "hubert", tmp_path / "ours", vocabulary=bpe)
    torch.save({"model": {**state, "new_head.weight": torch.zeros(2)}}, path)
    with pytest.raises(ConversionError, match=r"1 unknown \(new_head\.weight\)"):
        convert(path, None, tmp_path / "ours", vocabulary=bpe)
    torch.save({"model": {key: tensor for key, tensor in state.items() if key != "joiner.output_linear.bias"}}, path)
    with pytest.raises(ConversionError, match=r"1 missing \(joiner\.output_linear\.bias\)"):
        convert(path, None, tmp_path / "ours", vocabulary=bpe)
    small = {key: tensor[:20] if key in ("decoder.embedding.weight",) else tensor for key, tensor in state.items()}
    torch.save({"model": small}, path)
    with pytest.raises(ConversionError, match="24 word pieces, but the model 20"):
        convert(path, None, tmp_path / "ours", vocabulary=bpe)
    assert not (tmp_path / "ours").exists()
    other = save_tiny_recognizer(tmp_path / "other")
    with pytest.raises(ConversionError, match="only those of mt2kd are written for icefall"):
        to_icefall(other, tmp_path / "back.pt")


def test_where_speakers_are_heard_is_told_by_what_the_transducer_reads(tmp_path: Path) -> None:
    for stack, width in ((None, 10), (1, 10), (1, 20)):
        settings = second_stage(speech_width=width, project_speech=True, speaker_stack=stack)
        _, state = official(settings)
        found = model_config({key: tuple(tensor.shape) for key, tensor in state.items() if not key.startswith(tuple(COPIES))})
        assert found.project_speech
        assert (found.speaker_stack, found.speech_width) == (stack, width)


def test_stacks_whose_heads_differ_are_read_off_their_shapes() -> None:
    settings = tiny_config(vocabulary=0, tags=5)
    encoder = replace(settings.encoder, query_head_dim=(4, 6), value_head_dim=(4, 3))
    _, state = official(replace(settings, encoder=encoder))
    found = model_config({key: tuple(tensor.shape) for key, tensor in state.items()}).encoder
    assert (found.query_head_dim, found.value_head_dim, found.heads) == ((4, 6), (4, 3), encoder.heads)


def test_sizes_of_the_m_model_are_read_off_its_shapes() -> None:
    with torch.device("meta"):
        model = MT2KD(MT2KDConfig(task="transcription", speech_width=0, speakers=5994))
    shapes = {find_key(names(MEDIUM), name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = model_config(shapes)
    for name in ("layers", "downsampling", "dims", "feed_forward", "heads", "kernels", "unmasked_dims", "query_head_dim", "features"):
        assert getattr(found.encoder, name) == getattr(MEDIUM, name), name
    assert (found.speaker_stack, found.vocabulary, found.tags, found.speakers) == (2, 500, 527, 5994)
    assert found.transducer == JoinerConfig()
    with pytest.raises(OptionError, match=r"encoder_embed\.out\.weight"):
        model_config({key: shape for key, shape in shapes.items() if key != "encoder_embed.out.weight"})
