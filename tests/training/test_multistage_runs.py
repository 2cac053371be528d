"""The three stages through the whole loop: each learns, hands over its audio encoder bit by bit, and ends in a model that transcribes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import cli, config, systems
from avtlm.plain_yaml import read_yaml
from avtlm.recognizer import Recognizer
from avtlm.training.initial import build, merged
from avtlm.training.loop import TrainConfig
from tests.made_corpus import MadeCorpus, make_corpus
from tests.test_configs import ROOT
from tests.training.made_runs import broken_and_resumed, journal, run, same, weights
from tests.training.made_stages import DECODER, MODEL, stage, with_translations


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


@pytest.fixture(scope="module")
def stages(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models of the three stages, trained long enough to have learned something."""
    folder = tmp_path_factory.mktemp("stages")
    return [run(stage(corpus, folder, number, steps=24, save_every=24, log_every=6)) for number in (1, 2, 3)]


def test_every_stage_lowers_its_loss(stages: list[Path]) -> None:
    for model, names in zip(stages, (("audio_error", "video_error"), ("nll",), ("ctc_loss",)), strict=True):
        lines = journal(model)
        for name in names:
            [key] = [key for key in lines[0] if key.rpartition("/")[2] == name]
            assert lines[-1][key] < lines[0][key], key


@pytest.mark.parametrize("number", [2, 3])
def test_a_stage_starts_with_the_audio_encoder_of_the_one_before_bit_by_bit(corpus: MadeCorpus, stages: list[Path], number: int) -> None:
    settings = config.load(TrainConfig, stage(corpus, stages[0].parents[1], number))
    start = build(settings)
    assert isinstance(start.model, Recognizer)
    before = {name.removeprefix("encoder."): tensor for name, tensor in weights(stages[number - 2]).items()} if number == 3 else {}
    before = before or weights(stages[0])
    handed = start.model.encoder.state_dict()
    assert {name.split(".")[0] for name in handed} == {"frontend", "norm", "positions", "encoder"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in handed.items())
    assert start.inputs.video_size is None


def test_the_decoder_is_dropped_unless_it_is_asked_for(corpus: MadeCorpus, stages: list[Path]) -> None:
    folder = stages[0].parents[1]
    both = {"model": {"ctc_weight": 0.3, "decoder": DECODER}}
    given = {key.removeprefix("decoder."): value for key, value in weights(stages[1]).items() if key.startswith("decoder.")}
    for kept in (True, False):
        start = build(config.load(TrainConfig, stage(corpus, folder, 3, keep_decoder=kept, **both)))
        own = start.model.decoder.state_dict()  # type: ignore[union-attr, operator]
        taken = [name for name in own if torch.equal(own[name], given[name]) and "weight" in name and own[name].dim() == 2]
        assert bool(taken) == kept
        assert "embedding.weight" not in taken  # of another vocabulary
    # The same language again keeps embeddings, too.
    again = stage(corpus, folder, 2, keep_decoder=True, initialise=str(stages[1]))
    kept_whole = build(config.load(TrainConfig, again)).model.decoder.state_dict()  # type: ignore[union-attr, operator]
    assert all(torch.equal(tensor, given[name]) for name, tensor in kept_whole.items())


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (3, {"keep_decoder": True}, r"^keep_decoder: true, but model\.decoder is null; .*\.$"),
        (3, {"keep_decoder": True, "model": {"ctc_weight": 0.3, "decoder": {**DECODER, "layers": 2}}}, r"do not fit model\.decoder"),
        (2, {"keep_decoder": True}, r"1_pretrain/model holds no recogniser with an attention decoder; .*\.$"),
        (2, {"model": {"encoder": {"encoder": {"dim": 48}}}}, r"^initialise: \d+ tensors do not fit this model .*\.$"),
        (2, {"system": "hubert"}, r"^initialise: .* holds a multistage model, but system is hubert; name one of its own\.$"),
    ],
)
def test_checkpoints_of_other_configurations_are_refused_in_one_sentence(
    corpus: MadeCorpus, stages: list[Path], number: int, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(config.load(TrainConfig, stage(corpus, stages[0].parents[1], number, **changes)))


def test_a_decoder_is_kept_of_an_initial_recogniser_alone(corpus: MadeCorpus, tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="only recognition from an initial recogniser takes a decoder"):
        config.load(TrainConfig, stage(corpus, tmp_path, 1, keep_decoder=True))


def test_the_last_stage_transcribes_sound(stages: list[Path], corpus: MadeCorpus, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = systems.load(stages[2])
    assert loaded.inputs.video_size is None
    assert loaded.decoder is None
    sound = sorted(corpus.sound.parent.glob("*.wav"))[0]
    assert cli.main(["transcribe", str(sound), "--model", str(stages[2]), "--modality", "a"]) == 0
    assert capsys.readouterr().err == ""
    assert cli.main(["evaluate", str(corpus.sound), "--model", str(stages[2]), "--modality", "a", "--split", "valid"]) == 0
    assert "%" in capsys.readouterr().out


def test_a_pre_trained_model_is_an_encoder_of_sound(stages: list[Path]) -> None:
    encoder, inputs = systems.load_encoder(stages[0])
    assert inputs.video_size == 22
    assert inputs.frame_rate == 25
    assert not encoder.training


def test_a_resumed_pre_training_equals_one_that_never_stopped(corpus: MadeCorpus, tmp_path: Path) -> None:
    whole = run(stage(corpus, tmp_path / "whole", 1, steps=6, save_every=3))
    assert same(broken_and_resumed(stage(corpus, tmp_path / "broken", 1, steps=6, save_every=3), 4), whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "mae", "video": "patches"},
        {"objective": "clr"},
        {"objective": "mae", "video": "none"},
    ],
)
def test_every_first_stage_trains_and_hands_over(corpus: MadeCorpus, tmp_path: Path, changes: dict[str, str]) -> None:
    run(stage(corpus, tmp_path, 1, model=MODEL | changes, steps=2))
    assert systems.load(run(stage(corpus, tmp_path, 2, steps=2))).decoder is not None


def test_sound_alone_stops_an_audio_visual_pre_training_in_one_sentence(corpus: MadeCorpus, tmp_path: Path) -> None:
    source = {"clips": {"manifest": str(corpus.sound), "task": "audio"}}
    with pytest.raises(ValueError, match=r"^sound\d+: no video, which audio-visual pre-training needs of every clip; .*\.$"):
        run(stage(corpus, tmp_path, 1, sources=source))


@pytest.mark.parametrize("folder", ["multistage", "multistage/tiny"])
def test_every_configuration_runs_from_the_one_before(corpus: MadeCorpus, tmp_path: Path, folder: str) -> None:
    before: Path | None = None
    files = sorted((ROOT / folder).glob("*.yaml"))
    assert [path.stem for path in files] == ["1_pretrain", "2_translate", "3_recognise"]
    for path in files:
        settings = merged(read_yaml(path), shrunk(corpus, path) | {"output": str(tmp_path / path.stem)})
        assert (before is None) == ("initialise" not in settings)
        if before is not None:
            assert settings["initialise"].endswith(f"{before.parent.name}/model")
            settings["initialise"] = str(before)
        before = run(settings)
    assert before is not None
    assert systems.load(before).inputs.waveform


def shrunk(corpus: MadeCorpus, path: Path) -> dict[str, Any]:
    """What makes a configuration a small one on made data."""
    published = read_yaml(path)
    small: dict[str, Any] = {"steps": 2, "save_every": 2, "log_every": 1, "max_rows": 4, "workers": 0, "threads": 1, "precision": "fp32"}
    small |= {"tensorboard": False, "accumulate": 1, "validate_every": 2 if "validation" in published else 0}
    manifest = str(corpus.clips if published["task"] == "pretrain" else with_translations(corpus))
    small["sources"] = {name: {"manifest": manifest} for name in published["sources"]}
    if "validation" in published:
        small["validation"] = {"manifest": manifest}
    if published["task"] == "pretrain":
        small["model"] = {key: value for key, value in MODEL.items() if key != "patches"}
    elif published["model"].get("decoder"):
        small["model"] = {"decoder": DECODER}
    if published.get("subwords"):
        small["subwords"] = 11
    return small
