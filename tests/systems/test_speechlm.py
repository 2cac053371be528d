"""SpeechLM beside what a replay of the stored cases shows: its promises, its sizes, its losses."""

from dataclasses import replace

import pytest
import torch

from avtlm import config
from avtlm.nn.unit_encoder import UnitEncoderConfig
from avtlm.protocols import CombinesLosses, DropsHeads, FollowsSteps, PredictsUnits, SpeechEncoder, Trainable
from avtlm.systems.speechlm import SpeechLM, SpeechLMConfig
from avtlm.text.vocabulary import SPECIALS, Vocabulary
from avtlm.whole_model import WholeModel
from tests.systems.bridge_models import DECODER, SPEECHLM, speech, speechlm, text

LARGE = {"dim": 1024, "layers": 12, "heads": 16, "feed_forward_dim": 4096, "norm_first": True}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def count(settings: SpeechLMConfig) -> int:
    with torch.device("meta"):
        model = SpeechLM(settings)
    return sum(parameter.numel() for parameter in model.parameters())


def test_base_models_have_the_official_numbers_of_parameters() -> None:
    unused = 12 * 2 * 96  # norms of distances in post-norm layers, which official models carry without use
    assert count(SpeechLMConfig()) + unused == 98_989_217
    assert count(SpeechLMConfig(units=369, label_rate=100.0)) + unused == 98_815_137


def test_the_large_model_has_the_official_number_of_parameters() -> None:
    settings = SpeechLMConfig()
    settings = replace(
        settings,
        units=369,
        waveform=replace(settings.waveform, norm="layer", normalise=True),
        encoder=replace(settings.encoder, **LARGE),
        unit_encoder=UnitEncoderConfig(**LARGE),  # type: ignore[arg-type]
    )
    assert count(settings) == 321_781_921


def test_it_meets_the_protocols() -> None:
    model = speechlm()
    for protocol in (Trainable, CombinesLosses, FollowsSteps, DropsHeads, PredictsUnits, SpeechEncoder):
        assert isinstance(model, protocol), protocol


def test_a_configuration_comes_back_from_yaml() -> None:
    for settings in (SPEECHLM, replace(SPEECHLM, task="recognition", decoder=DECODER, further_units=(9,))):
        assert config.load(SpeechLMConfig, config.to_dict(settings)) == settings


def test_units_of_hidden_frames_are_predicted_at_two_depths() -> None:
    model = speechlm()
    losses = model.losses(speech(), generator())
    assert set(losses) == {"masked_prediction", "shared_masked_prediction", "feature_penalty"}
    assert int(losses["masked_prediction"].count) > 0
    assert int(losses["shared_masked_prediction"].count) == int(losses["feature_penalty"].count) == 0
    names = {name for loss in losses.values() for name in loss.logs}
    assert {"masked_loss", "shared_masked_loss", "masked_accuracy", "shared_masked_accuracy"} <= names
    again = model.losses(speech(), generator())
    assert all(torch.equal(losses[name].value, again[name].value) for name in losses)


def test_visible_frames_halve_what_is_divided_by() -> None:
    batch, model = speech(), speechlm()
    both = speechlm(losses=replace(SPEECHLM.losses, visible=0.5))
    drawn = model.draw(batch, generator())
    hidden, valid = model.masked_losses(batch, drawn), both.masked_losses(batch, drawn)
    crossing = model.cross(batch, drawn)
    frames = int((~crossing.heard.padding & (crossing.units[0] >= 0)).sum())
    assert float(valid["masked_prediction"].count) == frames / 2
    assert valid["masked_prediction"].value > hidden["masked_prediction"].value


def test_the_second_depth_may_predict_another_kind_of_units() -> None:
    other = torch.randint(4, 8, speech().targets["units"].shape)
    model = speechlm(further_units=(9,))
    assert model.shared_predictor is not None
    assert model.shared_predictor.sizes == (9,)
    batch = speech(units_1=other)
    assert model.losses(batch, generator())["shared_masked_prediction"].value > 0
    with pytest.raises(ValueError, match="a: no labels 'units_1'"):
        model.losses(speech(), generator())


def test_one_gate_serves_both_heads() -> None:
    model = speechlm(unit_glu=True)
    assert model.predictor is not None
    assert model.shared_predictor is not None
    assert model.predictor.glu is model.shared_predictor.glu
    assert model.predictor.glu is not None


def test_units_of_a_text_teach_its_letters() -> None:
    model, batch = speechlm(), text()
    losses = model.losses(batch, generator())
    assert set(losses) == {"letters"}
    assert int(losses["letters"].count) == 5 + 3 + 4 + 3  # with their ends
    plain = model.text_losses(batch, None)["letters"]
    weight = SPEECHLM.losses.ctc
    assert plain.value.item() == pytest.approx(weight * plain.logs["ctc_loss"][0].item())
    assert not torch.equal(plain.value, losses["letters"].value)  # some units were hidden


def test_every_part_learns_from_speech_and_text() -> None:
    model = speechlm()
    groups = [model.losses(speech(), generator()), model.losses(text(), generator())]
    combined = model.combine([speech(), text()], groups)
    torch.stack([loss.value for group in combined for loss in group.values()]).sum().backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert silent == []


def test_training_lowers_both_losses() -> None:
    model = speechlm().train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    seen = []
    for _ in range(30):
        batches = [speech(), text()]
        combined = model.combine(batches, [model.losses(batch, generator()) for batch in batches])
        seen.append([float(combined[0]["shared_masked_prediction"].value), float(combined[1]["letters"].value)])
        optimizer.zero_grad()
        torch.stack([loss.value for group in combined for loss in group.values()]).sum().backward()
        optimizer.step()
    assert all(last < 0.7 * first for first, last in zip(seen[0], seen[-1], strict=True))


def test_a_batch_that_teaches_nothing_is_refused() -> None:
    model, units = speechlm(), text()
    with pytest.raises(ValueError, match="d: neither speech nor units of a text"):
        model.losses(replace(units, text_units=None), generator())
    with pytest.raises(ValueError, match=r"its source has no letters \(written\)"):
        model.losses(replace(units, text=None, text_lengths=None), generator())
    with pytest.raises(ValueError, match=r"its model has no CTC \(ctc_head\)"):
        speechlm(ctc_head="none").losses(units, generator())


def test_fine_tuning_drops_what_only_pre_training_needs() -> None:
    model = speechlm()
    model.drop_heads()
    parts = {name.split(".")[0] for name in model.state_dict()}
    assert parts == {"frontend", "feature_mask", "encoder", "unit_encoder", "ctc"}
    assert parts == {name.split(".")[0] for name in speechlm(task="recognition").state_dict()}


def test_recognition_hides_frames_in_training_alone() -> None:
    model, batch = speechlm(task="recognition"), speech()
    still = [float(model.losses(batch, torch.Generator().manual_seed(seed))["ctc"].value) for seed in (1, 2)]
    assert still[0] == still[1]
    model.train()
    drawn = [float(model.losses(batch, torch.Generator().manual_seed(seed))["ctc"].value) for seed in (1, 2)]
    assert drawn[0] != drawn[1]


def test_what_a_task_changes() -> None:
    assert SpeechLMConfig.of_task("pretrain") == {"task": "pretrain"}
    assert SpeechLMConfig.of_task("transcription")["task"] == "recognition"
    with pytest.raises(ValueError, match="task: generation for speechlm, which writes text alone"):
        SpeechLMConfig.of_task("generation")
    with pytest.raises(ValueError, match="decoder: pre-training of SpeechLM has none"):
        replace(SPEECHLM, decoder=DECODER)


@pytest.mark.parametrize("head", ["ctc", "decoder"])
def test_it_writes_by_the_head_that_it_has(head: str) -> None:
    vocabulary = Vocabulary([*SPECIALS, *"abcde", "<mask>"])
    changes = {"task": "recognition"} if head == "ctc" else {"task": "recognition", "decoder": DECODER, "ctc_head": "none"}
    model = WholeModel(speechlm(**changes), vocabulary)
    assert model.decoding.method == ("ctc_greedy" if head == "ctc" else "attention")
    found = model.search(speech())
    assert len(found) == 3
    assert all(set(row[0].text) <= set("abcde") for row in found)  # neither the blank nor <mask>
    if head == "ctc":
        alone = model.search(speech(1))[0][0]
        assert alone.tokens == found[1][0].tokens
