"""Every configuration that ships is read strictly, says what it reproduces, and builds the model it describes."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from avtlm import config, systems
from avtlm.config import ConfigError
from avtlm.plain_yaml import dump_yaml, read_yaml
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.text.vocabulary import Vocabulary
from avtlm.training.initial import load_except, merged
from avtlm.training.loop import TrainConfig
from avtlm.training.whole_system import model_settings

ROOT = Path(__file__).resolve().parent.parent / "configs"
FILES = sorted(ROOT.rglob("*.yaml"))
TINY = ROOT / "vatlm" / "tiny_pretrain.yaml"
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def encoder(settings: TrainConfig, changes: dict[str, Any]) -> nn.Module:
    """The system that a configuration describes: that of the configuration it starts from, with single settings changed."""
    system = systems.find(settings.system)
    start = pretrainings().get(settings.initialise or "")
    return system.build(config.load(system.config_class(), merged(start.model if start else {}, changes)))


def read(path: Path) -> TrainConfig:
    return config.load(TrainConfig, path)


@functools.cache
def pretrainings() -> dict[str, TrainConfig]:
    """Those that other configurations may start from, by the folder of their model."""
    return {f"{settings.output}/model": settings for settings in map(read, FILES) if settings.task == "pretrain"}


def build(settings: TrainConfig, device: str = "meta") -> nn.Module:
    """The model of a configuration; on "meta" its weights have sizes only, so that large models cost nothing."""
    with torch.device(device):
        if settings.task == "language_model":
            return encoder(settings, settings.model | {"vocabulary": 1000})
        if settings.task == "text_to_units":
            return encoder(settings, settings.model | {"vocabulary": 46})
        if systems.find(settings.system).whole:
            return encoder(settings, model_settings(settings, {}, {"speakers": 1251} if settings.task == "speaker" else {}))
        if settings.task == "pretrain":
            return encoder(settings, settings.model)
        heads = config.load(RecognizerConfig, settings.model)
        return Recognizer(heads, encoder(settings, heads.encoder), Vocabulary.characters(["abc"]))


def count(path: str) -> int:
    """Parameters that are trained; a teacher's are not."""
    return sum(parameter.numel() for parameter in build(read(ROOT / path)).parameters() if parameter.requires_grad)


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_there_are_configurations() -> None:
    assert TINY in FILES


@each_file
def test_a_configuration_says_at_its_top_which_table_it_reproduces(path: Path) -> None:
    head = [line for line in path.read_text().split("system:")[0].splitlines() if line]
    assert head
    assert all(line.startswith("#") for line in head)
    assert "table" in " ".join(head).lower()


@each_file
def test_a_configuration_is_read_strictly_and_builds_its_model(path: Path) -> None:
    settings = read(path)
    assert settings.system.removeprefix("fast_") == path.relative_to(ROOT).parts[0]
    model = build(settings)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


@each_file
def test_every_key_of_a_configuration_can_be_overridden(path: Path) -> None:
    data = read_yaml(path)
    overrides = [f"{key}={dump_yaml(value).strip()}" for key, value in leaves(data) if not isinstance(value, list)]
    assert len(overrides) > 20
    bare = {"system": data["system"], "task": data["task"], "output": "elsewhere", "sources": {}} | {
        key: value for key, value in data.items() if isinstance(value, dict | list)
    }
    assert config.load(TrainConfig, bare, overrides) == read(path)
    changed = config.load(TrainConfig, path, ["steps=7", "optim.lr=0.5", "output=elsewhere", "seed=3"])
    assert (changed.steps, changed.optim.lr, changed.output, changed.seed) == (7, 0.5, "elsewhere", 3)
    assert changed.sources == read(path).sources


@each_file
def test_an_unknown_key_is_refused_at_every_depth(path: Path) -> None:
    settings = read(path)
    name = next(iter(settings.sources))
    for key in ("stepz", "optim.lrr", f"sources.{name}.manifezt", f"sources.{name}.augment.noise.probb"):
        with pytest.raises(ConfigError, match=r"is not known; did you mean"):
            config.load(TrainConfig, path, [f"{key}=1"])
    if settings.task in ("language_model", "text_to_units"):
        with pytest.raises(ConfigError, match="'dimm' is not known; did you mean 'dim'"):
            build(config.load(TrainConfig, path, ["model.dimm=1"]))
        return
    deep = [] if settings.task == "pretrain" or systems.find(settings.system).whole else ["encoder"]
    front = ["frontends", "lips", "sizze"] if settings.system in ("avhubert", "vatlm") else ["waveform", "widthss"]
    front = ["subsampling", "bandss"] if settings.system in ("mmspeech", "multistage") else front
    front = ["transducer", "joint_dimm"] if settings.system == "mt2kd" else front
    for keys in (["zzz"], [*deep, "encoder", "dimm"], [*deep, *front]):
        with pytest.raises(ConfigError, match=rf"'[a-z.]*{keys[-1]}' is not known"):
            build(config.load(TrainConfig, path, [f"model.{'.'.join(keys)}=1"]))


@each_file
def test_paths_of_a_configuration_lie_below_the_folder_that_runs_it(path: Path) -> None:
    settings = read(path)
    parts = [*settings.sources.values(), *([settings.validation] if settings.validation else [])]
    files = [file for part in parts for file in (part.manifest, part.units, part.voices) if file is not None]
    named = [settings.output, *files]
    assert all(name.startswith("runs/") and ".." not in name for name in named)


def test_tiny_fine_tuning_starts_from_tiny_pre_training() -> None:
    pretraining, finetuning = read(TINY), read(TINY.with_name("tiny_finetune.yaml"))
    assert finetuning.initialise == f"{pretraining.output}/model"
    first, second = build(pretraining, "cpu"), build(finetuning, "cpu")
    assert isinstance(second, Recognizer)
    load_except(second.encoder, first.state_dict(), finetuning.fresh)  # raises where sizes differ
    assert sum(parameter.numel() for parameter in second.parameters()) < 2_000_000


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("avhubert/base.yaml", 103_330_280),
        ("avhubert/base_lrs3.yaml", 103_330_280),
        ("avhubert/large_lrs3.yaml", 325_398_504),
        ("avhubert/large.yaml", 325_398_504),
        ("vatlm/base.yaml", 107_497_448),
        ("vatlm/base_lrs3.yaml", 107_497_448),
        ("vatlm/large.yaml", 332_789_736),
        ("wav2vec2/base.yaml", 95_044_608),
        ("wav2vec2/large.yaml", 317_390_592),
        ("hubert/base.yaml", 94_697_600),
        ("hubert/base_iter1.yaml", 94_697_600 - 400 * 256),
        ("hubert/large.yaml", 316_609_408),
        ("wavlm/base.yaml", 94_707_824),
        ("wavlm/large.yaml", 316_609_408 + 24 * (64 * 8 + 8 + 16) + 320 * 16),
        ("data2vec/base.yaml", 93_754_880),
        ("mt4ssl/base.yaml", 94_142_456),
        ("text2unit/fast_small.yaml", 41_329_917 - 921_090),  # predictors of pitch and energy, that nothing uses
        # SpeechT5's carry norms of distances in all layers, and distances in the decoder, that nothing uses.
        ("speecht5/base.yaml", 154_388_957 - 18 * 2 * 64 - 320 * 64),
        ("speecht5/large.yaml", 421_189_341 - 6 * 2 * 64 - 320 * 64),
        ("speecht5/finetune_asr_100h.yaml", 153_832_469 - 18 * 2 * 64 - 320 * 64),
        ("speecht5/finetune_tts.yaml", 153_832_469 - 18 * 2 * 64 - 320 * 64),
        ("speecht5/finetune_vc.yaml", 153_832_469 - 18 * 2 * 64 - 320 * 64),
        ("speecht5/finetune_sid.yaml", 153_832_469 - 18 * 2 * 64 - 320 * 64 + 1251 * 768),
        # SpeechUT's carry norms of distances in post-norm layers, which nothing uses.
        ("speechut/base.yaml", 155_816_602 - 12 * 2 * 96 - 6 * 2 * 64),
        ("speechut/large.yaml", 378_948_506 - 18 * 2 * 64),
        ("speechut/base_st.yaml", 162_240_121 - 12 * 2 * 96 - 6 * 2 * 64 - (10_001 - 33) * 768),
        ("speechut/finetune_100h.yaml", 155_816_602 - 12 * 2 * 96 - 6 * 2 * 64 - 505 * (256 + 2 * 768 + 1) - 256 * 769),
        # MMSpeech's carry tables of pictures, and a norm and a projection that nothing uses.
        ("mmspeech/base.yaml", 210_967_464 - 2_446_944),
        ("mmspeech/large.yaml", 608_949_696 - 4_186_368),
        # Those of MT2KD carry a parameter for every channel of a layer that nothing uses.
        ("mt2kd/medium_finetune.yaml", 66_164_386 - 5_760),
        ("mt2kd/medium_pretrain.yaml", 66_164_386 - 5_760 - 65_549_011 + 611_953 + 63_382_150 + 513 * 2560),
        # SpeechLM's, too; large is pre-norm.
        ("speechlm/base_h.yaml", 98_989_217 - 12 * 2 * 96),
        ("speechlm/base_p.yaml", 98_815_137 - 12 * 2 * 96),
        ("speechlm/large_p.yaml", 321_781_921),
        ("speechlm/finetune_100h.yaml", 98_989_217 - 12 * 2 * 96 - 505 * (768 + 2 * 256) - 2 * 256 * 769),
    ],
)
def test_published_models_have_the_official_numbers_of_parameters(path: str, parameters: int) -> None:
    assert count(path) == parameters


def test_models_of_the_first_iterations_differ_from_the_last_in_their_masks_and_units_alone() -> None:
    # 1900 clusters of 256 values fewer; the mask vector hides 768 fused values in place of 104 audio values.
    assert count("avhubert/base_iter1.yaml") == 103_330_280 - 1900 * 256 + 768 - 104


@pytest.mark.parametrize(("size", "millions"), [("base", 57.5), ("large", 152.2)])
@pytest.mark.parametrize("system", ["avhubert", "vatlm"])
def test_published_decoders_have_the_official_size_with_1000_word_pieces(system: str, size: str, millions: float) -> None:
    for task in ("avsr", "vsr"):
        settings = read(ROOT / system / f"finetune_{task}_{size}.yaml")
        heads = config.load(RecognizerConfig, settings.model)
        with torch.device("meta"):
            model = Recognizer(heads, encoder(settings, heads.encoder), Vocabulary.tokens([f"t{i}" for i in range(996)]))
        assert model.decoder is not None
        assert model.ctc is None
        assert round(sum(parameter.numel() for parameter in model.decoder.parameters()) / 1e6, 1) == millions
