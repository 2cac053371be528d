"""Speech step by step."""

from dataclasses import replace

import pytest
import torch

from avtlm.decoding.synthesis import SynthesisOptions, synthesize
from avtlm.nn.spectrogram import shift_frames
from avtlm.systems.speecht5 import SpeechT5
from tests.systems.sequence_models import SPECTROGRAM, batch, speecht5

OPTIONS = SynthesisOptions(longest=4.0)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def speaks(bias: float, **changes: object) -> SpeechT5:
    """A model whose speech ends sooner or later."""
    model = speecht5(task="generation", **changes)
    assert model.spectrogram is not None
    with torch.no_grad():
        model.spectrogram.stop.weight *= 0.5
        model.spectrogram.stop.bias.fill_(bias)
    return model


def test_speech_of_an_utterance_does_not_depend_on_its_batch() -> None:
    model, rows = speaks(-2.0), batch("text", "voice")
    encoded, lengths = model.encode(rows)
    together = synthesize(model, encoded, lengths, rows.targets["voice"], generators(1, 2, 3), OPTIONS)
    assert len({len(each.mel) for each in together}) > 1
    for row, found in enumerate(together):
        one = batch("text", "voice", row=row)
        [alone] = synthesize(model, *model.encode(one), one.targets["voice"], generators(row + 1), OPTIONS)
        torch.testing.assert_close(found.mel, alone.mel, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.attention, alone.attention, atol=1e-5, rtol=1e-5)
        assert found.cut == alone.cut


def test_a_seed_repeats_what_was_said_and_another_one_does_not() -> None:
    model, one = speaks(-9.0), batch("text", "voice", row=1)
    encoded, lengths = model.encode(one)
    first, again, other = (synthesize(model, encoded, lengths, one.targets["voice"], generators(seed), OPTIONS)[0] for seed in (1, 1, 2))
    assert torch.equal(first.mel, again.mel)
    assert not torch.equal(first.mel, other.mel)


def test_speech_that_never_ends_is_cut_and_says_so() -> None:
    model, one = speaks(-90.0), batch("text", "voice", row=1)
    encoded, lengths = model.encode(one)
    [endless] = synthesize(model, encoded, lengths, one.targets["voice"], generators(1), OPTIONS)
    assert endless.cut
    assert len(endless.mel) == 2 * int(6 * 4.0 / 2)
    [brief] = synthesize(speaks(90.0), encoded, lengths, one.targets["voice"], generators(1), OPTIONS)
    assert not brief.cut
    assert len(brief.mel) == 2
    [longer] = synthesize(speaks(90.0), encoded, lengths, one.targets["voice"], generators(1), replace(OPTIONS, shortest=1.0))
    assert len(longer.mel) == 6


def test_the_two_rules_of_the_end_differ() -> None:
    """Two probabilities of 0.3 add up to more than 0.5, and none of them reaches it."""
    model, one = speaks(-0.85), batch("text", "voice", row=1)
    assert model.spectrogram is not None
    with torch.no_grad():
        model.spectrogram.stop.weight.zero_()
    encoded, lengths = model.encode(one)
    found = {
        rule: synthesize(model, encoded, lengths, one.targets["voice"], generators(1), replace(OPTIONS, stop=rule))[0]  # type: ignore[arg-type]
        for rule in ("any", "sum")
    }
    assert found["any"].cut
    assert len(found["sum"].mel) == 2


def test_steps_say_what_teacher_forcing_says() -> None:
    model, one = speaks(-90.0), batch("text", "voice", row=0)
    encoded, lengths = model.encode(one)
    keep = torch.rand(22, 2, 1, SPECTROGRAM.prenet_width, generator=torch.Generator().manual_seed(0)) > 0.5
    [said] = synthesize(model, encoded, lengths, one.targets["voice"], options=OPTIONS, keep=keep)
    steps = len(said.mel) // 2
    assert steps == 22
    memory = model.decoder.project_memory(encoded, lengths)
    assert model.speech_prenet is not None
    assert model.spectrogram is not None
    with torch.no_grad():
        frames = torch.zeros(1, 0, 6)
        for _ in range(3):  # what the first steps wrote, fed at once
            count = frames.shape[1] // 2 + 1
            fed = shift_frames(torch.cat([frames, torch.zeros(1, 2, 6)], 1), 2)
            kept = keep[:count].permute(1, 2, 0, 3)
            written = model.write_speech(fed, torch.tensor([count]), one.targets["voice"], memory, kept)
            frames = written.before
    [short] = synthesize(model, encoded, lengths, one.targets["voice"], options=replace(OPTIONS, longest=6 / 11), keep=keep)
    torch.testing.assert_close(short.mel, model.spectrogram.refine(frames)[0], atol=1e-5, rtol=1e-5)


def test_speech_that_is_enhanced_is_as_long_as_what_is_heard() -> None:
    spectrogram = replace(SPECTROGRAM, reduction=1, reads="source", writes="mask")
    model, rows = speaks(0.0, spectrogram=spectrogram), batch("wave", "mel")
    encoded, lengths = model.encode(rows)
    noisy, ends = rows.targets["mel"], rows.target_lengths["mel"]
    keep = torch.ones(1, spectrogram.prenet_layers, 3, spectrogram.prenet_width, dtype=torch.bool)
    found = synthesize(model, encoded, lengths, None, options=OPTIONS, keep=keep, source=noisy, ends=ends)
    assert [len(each.mel) for each in found] == ends.tolist()
    assert not any(each.cut for each in found)
    memory = model.decoder.project_memory(encoded, lengths)
    at_once = model.write_speech(noisy, ends, None, memory, keep[0, :, :, None], source=noisy)
    for row, each in enumerate(found):
        torch.testing.assert_close(each.mel, at_once.after[row, : ends[row]], atol=1e-5, rtol=1e-5)


def test_what_cannot_be_said_is_refused() -> None:
    model, one = speaks(0.0), batch("text", "voice", row=1)
    encoded, lengths = model.encode(one)
    voice = one.targets["voice"]
    with pytest.raises(ValueError, match="2 generators for 1 utterances"):
        synthesize(model, encoded, lengths, voice, generators(1, 2))
    with pytest.raises(ValueError, match="utterance 0 has nothing to say"):
        synthesize(model, encoded, lengths * 0, voice, generators(1))
    with pytest.raises(ValueError, match="one of 3 values, but the model takes a speaker embedding of 5"):
        synthesize(model, encoded, lengths, voice[:, :3], generators(1))
    with pytest.raises(ValueError, match="this model writes no speech"):
        synthesize(speecht5(outputs=("text",)), encoded, lengths, voice, generators(1))
    with pytest.raises(ValueError, match="give a threshold above 0"):
        SynthesisOptions(threshold=0.0)
