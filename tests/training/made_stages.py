"""Configurations of the three stages on the corpus that can be learned in seconds, in files as `avtlm pipeline` reads them."""

import dataclasses
from pathlib import Path
from typing import Any

from avtlm import config
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.training.initial import merged
from tests.made_corpus import MadeCorpus
from tests.training.made_runs import LIPS

LAYERS = {"heads": 2, "feed_forward_dim": 32, "dropout": 0.0, "attention_dropout": 0.0, "layer_drop": 0.0, "position_kernel": 0}
MODEL: dict[str, Any] = {
    "subsampling": {"bands": 15},
    "lips": LIPS,
    "lip_cells": 11,
    "patches": {"picture": 22, "size": 11, "frames": 2},
    "position_kernel": 5,
    "position_groups": 4,
    "video_layers": 1,
    "joint_layers": 1,
    "contrast_dim": 8,
    "encoder": {"dim": 24, "layers": 2, **LAYERS},
    "decoder": {"dim": 16, "layers": 1, **LAYERS},
}
DECODER = {"dim": 24, "layers": 1, "heads": 2, "feed_forward_dim": 32, "dropout": 0.0, "activation_dropout": 0.0}
RUN = {"steps": 4, "save_every": 2, "log_every": 1, "max_rows": 4, "threads": 1, "tensorboard": False, "optim": {"lr": 0.003}}
NAMES = ("1_pretrain", "2_translate", "3_recognise")


def with_translations(corpus: MadeCorpus) -> Path:
    """The sound of a corpus, each letter translated into the one that stands at the other end of the alphabet, in capitals."""
    made = read_manifest(corpus.sound)
    said = ["".join(chr(ord("A") + ord("f") - ord(letter)) for letter in row.transcript or "") for row in made]
    rows = tuple(dataclasses.replace(row, extra={**row.extra, "translation": text}) for row, text in zip(made, said, strict=True))
    path = corpus.sound.with_name("translated.jsonl")
    write_manifest(path, Manifest(made.root, rows))
    return path


def stage(corpus: MadeCorpus, folder: Path, number: int, **changes: Any) -> dict[str, Any]:
    """Settings of the first, second or third stage, whose run lies in a folder of its own below ``folder``."""
    heard = {"task": "recognition", "modality": "a"}
    kinds: list[dict[str, Any]] = [
        {"task": "pretrain", "sources": {"clips": {"manifest": str(corpus.clips), "task": "audio_video"}}, "model": MODEL},
        {
            "task": "recognition",
            "sources": {"translated": {"manifest": str(with_translations(corpus)), "written": "translation", **heard}},
            "model": {"ctc_weight": 0.0, "decoder": DECODER, "decoding": {"method": "attention", "beam": 2}},
        },
        {
            "task": "recognition",
            "sources": {"labelled": {"manifest": str(corpus.sound), **heard}},
            "model": {"decoding": {"method": "ctc_greedy"}},
        },
    ]
    settings = {"system": "multistage", "output": str(folder / NAMES[number - 1]), **RUN, **kinds[number - 1]}
    if number > 1:
        settings["initialise"] = str(folder / NAMES[number - 2] / "model")
    return merged(settings, changes)


def write_stages(corpus: MadeCorpus, folder: Path) -> list[Path]:
    """The three of them as files."""
    paths = []
    for number, name in enumerate(NAMES, 1):
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(config.to_yaml(stage(corpus, folder, number)), encoding="utf-8")
    return paths
