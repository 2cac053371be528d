"""MT2KD: sizes, what a clip gives in any batch, which rows count for which teacher, and what waits."""

import dataclasses
from typing import Any

import pytest
import torch

from avtlm import config
from avtlm.decoding.search import Heads, Search
from avtlm.decoding.settings import DecodingConfig
from avtlm.nn.zipformer import ZipformerConfig
from avtlm.systems.mt2kd import BLANK, MT2KD, JoinerConfig, MT2KDConfig, WeightConfig
from avtlm.training.loop import TrainConfig
from avtlm.training.optim import make_optimizer
from benchmarks.one_encoder import CONFIGS
from tests.systems.heard_models import SIZES, SYMBOLS, sounds, tiny_config, tiny_model

UNUSED = 5760  # parameters of official layers that no code uses


def parameters(*parts: Any) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def test_the_m_model_has_the_official_numbers_of_parameters() -> None:
    with torch.device("meta"):
        model = MT2KD(MT2KDConfig(task="transcription", speech_width=0))
    transducer = parameters(model.encoder, model.transducer, model.simple_heard, model.simple_said)
    assert transducer + UNUSED == 65_549_011
    assert parameters(model) + UNUSED == 66_164_386
    assert parameters(model.tagging) == 270_351
    assert parameters(model.voice) == 345_024


def test_what_a_clip_gives_does_not_depend_on_its_batch() -> None:
    model, batch = tiny_model(), sounds(0.9, 0.5, 0.3)
    with torch.no_grad():
        together = model.hear(batch)
        tags, voices = model.tag_logits(together), model.embed_speaker(together)
        for row in range(3):
            length = int(batch.audio_lengths[row])  # type: ignore[index]
            alone = dataclasses.replace(batch, ids=("x",), audio=batch.audio[row : row + 1, :length], audio_lengths=torch.tensor([length]))  # type: ignore[index]
            heard = model.hear(alone)
            frames = int(heard.lengths[0])
            assert frames == int(together.lengths[row])
            torch.testing.assert_close(together.frames[row, :frames], heard.frames[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(tags[row], model.tag_logits(heard)[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(voices[row], model.embed_speaker(heard)[0], atol=1e-5, rtol=1e-4)


def answers(rows: int, frames: int, width: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "speech": torch.randn(rows, frames, width, generator=generator),
        "sound": torch.rand(rows, 3, generator=generator),
        "speaker": torch.randn(rows, 6, generator=generator),
    }


def taught(learned: list[list[bool]], **changes: Any) -> Any:
    batch = sounds(*[0.6] * len(learned), task="distillation")
    targets = {**answers(len(learned), 40), "learned": torch.tensor(learned), **changes}
    lengths = {"speech": torch.full((len(learned),), 40)}
    return dataclasses.replace(batch, targets=targets, target_lengths=lengths)


def test_a_row_counts_for_the_teachers_whose_answers_it_has_and_losses_are_divided_by_clips() -> None:
    model = tiny_model(speech_width=10, vocabulary=0, weights=WeightConfig(speech=2.0, sound=3.0, speaker=10.0))
    model.eval()
    everything = model.losses(taught([[True] * 3] * 2), torch.Generator())
    assert [int(loss.count) for loss in everything.values()] == [2, 0, 0]
    first = model.losses(taught([[True, False, False], [False, True, True]]), torch.Generator())
    second = model.losses(taught([[False, True, True], [True, False, False]]), torch.Generator())
    for name in ("speech", "sound", "speaker"):
        assert 0 < first[name].value < everything[name].value
        torch.testing.assert_close(first[name].value + second[name].value, everything[name].value)
    value, frames = everything["speech"].logs["speech_distance"]
    torch.testing.assert_close(everything["speech"].value, 2.0 * value)
    assert int(frames) == 2 * int(model.hear(sounds(0.6)).lengths)


def test_a_causal_student_may_answer_late() -> None:
    encoder = ZipformerConfig(**SIZES, causal=True, chunk_sizes=(16,), left_context=(-1,))
    late = tiny_model(encoder=encoder, speech_width=10, vocabulary=0, delay=2)
    prompt = tiny_model(encoder=encoder, speech_width=10, vocabulary=0)
    batch = taught([[True, False, False]])
    frames = [int(model.losses(batch, torch.Generator())["speech"].logs["speech_distance"][1]) for model in (late, prompt)]
    assert frames[1] - frames[0] == 2
    with pytest.raises(ValueError, match="delay: 2"):
        tiny_config(delay=2)


def test_a_teacher_of_another_width_is_refused() -> None:
    model = tiny_model(speech_width=12, vocabulary=0)
    with pytest.raises(ValueError, match="speech_width: 12 is no multiple of the teacher's 5"):
        model.losses(taught([[True] * 3]), torch.Generator())


def test_without_answers_teachers_have_to_be_named() -> None:
    batch = dataclasses.replace(sounds(0.6, task="distillation"), targets={"learned": torch.ones(1, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match="no stored answers"):
        tiny_model(speech_width=10, vocabulary=0).losses(batch, torch.Generator())


def recognition(rows: int = 2) -> Any:
    tokens = torch.tensor([[4, 5, 6], [7, 5, 1]][:rows])
    lengths = torch.tensor([3, 2][:rows])
    return dataclasses.replace(sounds(*[0.8] * rows), targets={"tokens": tokens}, target_lengths={"tokens": lengths})


@pytest.mark.parametrize("loss", ["pruned", "full"])
def test_every_task_has_its_loss(loss: Any) -> None:
    joiner = JoinerConfig(dim=8, joint_dim=8, loss=loss, warmup=10)
    model = tiny_model(transducer=joiner, speakers=4, weights=WeightConfig(ctc=0.5))
    found = model.losses(recognition(), torch.Generator())
    assert set(found) == {"transducer", "ctc"}
    assert sum(int(each.count) for each in found.values()) == 2
    tagged = dataclasses.replace(sounds(0.5, task="tagging"), targets={"tags": torch.tensor([[1.0, 0.0, 1.0]])})
    named = dataclasses.replace(sounds(0.5, task="speaker"), targets={"speaker": torch.tensor([2])})
    assert set(model.losses(tagged, torch.Generator())) == {"tagging"}
    speaker = model.losses(named, torch.Generator())["speaker"]
    torch.testing.assert_close(speaker.value, 10.0 * speaker.logs["speaker_loss"][0])
    total = torch.stack(
        [each.value for batch in (recognition(), tagged, named) for each in model.losses(batch, torch.Generator()).values()]
    )
    total.sum().backward()
    lacking = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert lacking == []


def test_the_pruned_loss_lies_a_little_above_the_full_one_where_windows_hold_nearly_all_places() -> None:
    wide = tiny_model(transducer=JoinerConfig(dim=8, joint_dim=8, prune_range=3))
    full = tiny_model(transducer=JoinerConfig(dim=8, joint_dim=8, loss="full"))
    full.load_state_dict({name: tensor for name, tensor in wide.state_dict().items() if not name.startswith("simple")})
    pruned = wide.losses(recognition(1), torch.Generator())["transducer"].logs["transducer_loss"][0]
    exact = full.losses(recognition(1), torch.Generator())["transducer"].logs["transducer_loss"][0]
    assert exact < pruned < 1.02 * exact


def test_the_encoder_waits_and_heads_too_where_asked() -> None:
    model = tiny_model(freeze_encoder_steps=5, freeze_heads=True).train()
    tagged = dataclasses.replace(sounds(0.5, 0.6, task="tagging"), targets={"tags": torch.ones(2, 3)})
    model.start_step(0, 10)
    assert not model.encoder.training
    for batch in (recognition(), tagged):
        torch.stack([loss.value for loss in model.losses(batch, torch.Generator()).values()]).sum().backward()
    moved = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert moved == {"transducer", "simple_heard", "simple_said"}
    model.start_step(5, 10)
    assert model.encoder.training
    assert model.encoder.batch_count == 20005.0
    torch.stack([loss.value for loss in model.losses(tagged, torch.Generator()).values()]).sum().backward()
    assert any(parameter.grad is not None for parameter in model.encoder.parameters())


def test_parts_may_stay_as_they_are_for_good() -> None:
    model = tiny_model(frozen=("encoder.embed", "voice")).train()
    model.start_step(3, 10)
    assert not model.encoder.embed.training
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == {
        name for name, _ in model.named_parameters() if name.startswith(("encoder.embed.", "voice."))
    }
    with pytest.raises(ValueError, match=r"frozen: 'encoder\.embedding' is no part"):
        tiny_model(frozen=("encoder.embedding",))


def test_the_transducer_may_read_projected_frames() -> None:
    model = tiny_model(speech_width=10, project_speech=True)
    assert model.transducer is not None
    assert model.transducer.project_encoded.in_features == 10
    written, lengths = model.remember(sounds(0.8))
    assert written.shape[2] == 10
    assert lengths.tolist() == model.encode(sounds(0.8))[1].tolist()


def test_a_speaker_is_heard_in_what_the_transducer_reads_where_no_stack_is_named() -> None:
    model = tiny_model(speech_width=10, project_speech=True, speaker_stack=None).eval()
    assert model.voice.project.in_features == 2 * 10
    heard = model.hear(sounds(0.8))
    assert heard.frames.shape[2] == model.encoder.dim
    assert torch.equal(heard.voice, model.remember(sounds(0.8))[0])


def test_the_projection_waits_with_the_encoder() -> None:
    model = tiny_model(speech_width=10, project_speech=True, freeze_encoder_steps=2)
    projection, transducer = model.speech_projection, model.transducer
    assert projection is not None
    assert transducer is not None
    for step, learns in ((0, False), (2, True)):
        model.zero_grad()
        model.start_step(step, 4)
        sum(loss.value for loss in model.losses(recognition(), torch.Generator()).values()).backward()  # type: ignore[union-attr]
        assert (projection.weight.grad is not None) == learns
        assert transducer.output.weight.grad is not None


def test_released_pooling_counts_frames_by_the_longest_clip_of_the_output_too() -> None:
    model = tiny_model(speaker_stack=None, relative_lengths=True).eval()
    features, lengths = torch.randn(2, 180, 80), torch.tensor([180, 149])
    heard = model.listen(features, lengths)
    assert heard.lengths.tolist() == [43, 36]
    assert heard.voice_lengths.tolist() == [43, int((heard.lengths / 43 * 43).ceil()[1])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speaker_stack": 2}, "speaker_stack: 2; there are stacks 0 to 1"),
        ({"project_speech": True}, "project_speech"),
        ({"freeze_heads": True}, "freeze_heads"),
        ({"chunk": 16}, "chunk: 16"),
        ({"tags": 0}, "tags: 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_a_model_without_a_head_says_so() -> None:
    with pytest.raises(ValueError, match="vocabulary: 0"):
        tiny_model(vocabulary=0).losses(recognition(), torch.Generator())
    named = dataclasses.replace(sounds(0.5, task="speaker"), targets={"speaker": torch.tensor([0])})
    with pytest.raises(ValueError, match="speakers: this model has no head"):
        tiny_model().losses(named, torch.Generator())
    with pytest.raises(ValueError, match="output_layer: 1"):
        tiny_model().encode(sounds(0.5), output_layer=1)
    assert len(SYMBOLS) == 11


def test_losses_in_bfloat16_are_near_those_in_float32() -> None:
    model = tiny_model()
    plain = model.losses(recognition(), torch.Generator())["transducer"].value
    with torch.autocast("cpu", torch.bfloat16):
        half = model.losses(recognition(), torch.Generator())["transducer"].value
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, rtol=0.03, atol=0)


def test_the_published_second_stage_is_slow_in_what_the_first_has_trained() -> None:
    """A fifth of the rate for the encoder, tags and voices; the transducer and the names of speakers are new."""
    optim = config.load(TrainConfig, CONFIGS / "medium_finetune.yaml").optim
    model = tiny_model(speakers=4)
    slow, fast = make_optimizer(optim, model.named_parameters()).param_groups
    assert slow["lr"] == pytest.approx(0.2 * fast["lr"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parts = [{names[id(parameter)].split(".")[0] for parameter in group["params"]} for group in (slow, fast)]
    assert parts == [{"encoder", "tagging", "voice"}, {"transducer", "simple_heard", "simple_said", "speaker"}]


def test_texts_are_searched_as_by_the_official_code_with_one_symbol_in_a_frame() -> None:
    search = Search(DecodingConfig(**tiny_config().search), Heads(None, None, SYMBOLS, tiny_model().transducer))
    assert search.settings.symbols_per_frame == 1
    model = tiny_model()
    assert model.transducer is not None
    model.transducer.output.bias.data[BLANK] -= 8.0  # it would go on writing
    with torch.no_grad():
        heard = model.hear(sounds(0.6, 0.4))
        found = {}
        for most in (1, 3):
            settings = DecodingConfig("transducer", 1, symbols_per_frame=most, words=False)
            search = Search(settings, Heads(None, None, SYMBOLS, model.transducer))
            found[most] = [len(row[0].tokens) for row in search(heard.frames, heard.lengths)]
    frames = heard.lengths.tolist()
    assert found == {1: frames, 3: [3 * each for each in frames]}
    with pytest.raises(ValueError, match="symbols_per_frame: 0; give at least 1"):
        DecodingConfig("transducer", 1, symbols_per_frame=0)
