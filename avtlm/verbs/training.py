"""The verbs of `avtlm` around training: ``train``, ``profile``, ``plan`` and ``average``."""

import argparse
import os
from typing import Any

from avtlm.verbs import AddVerb
from avtlm.verbs.printing import as_json


def add_verbs(verb: AddVerb) -> None:
    """Add ``train``, ``profile`` and ``plan``."""
    train = verb("train", _train, "train what a configuration describes", "A run that was stopped goes on where its last state was saved.")
    profile = verb("profile", _profile, "measure where the time of a training step goes", "Nothing is kept of the steps that it makes.")
    plan = verb("plan", _plan, "say what a training takes: memory, speed, time", "It needs no data, and measures or estimates one step.")
    for runs in (train, profile, plan):
        runs.add_argument("config", metavar="CONFIG", help="a YAML file, such as those in configs/")
        runs.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="change single settings: optim.lr=1e-4")
    profile.add_argument("--steps", type=int, default=20, metavar="N", help="how many to measure (default: 20)")
    plan.add_argument("--gpus", type=int, default=1, metavar="N", help="devices (default: 1)")
    plan.add_argument("--hours", type=float, required=True, metavar="H", help="hours of sound or lips in the data")
    plan.add_argument("--device", metavar="GPU", help="estimate the time on this GPU, such as h100 (default: measure a step here)")
    peak = "share of its peak that a named GPU is assumed to reach (default: 0.1, as published pre-trainings of speech models)"
    plan.add_argument("--utilisation", type=float, default=0.1, metavar="X", help=peak)
    alone = "what each of several devices is assumed to do of what it does alone (default: 0.9)"
    plan.add_argument("--efficiency", type=float, default=0.9, metavar="X", help=alone)
    for figures in (profile, plan):
        figures.add_argument("--json", metavar="FILE", help="write the figures here as well")


def add_average(verb: AddVerb) -> None:
    """Add ``average``."""
    average = verb("average", _average, "average the weights of several models of one run")
    average.add_argument("models", metavar="DIR", nargs="+", help="model folders, such as those in RUN/candidates")
    average.add_argument("--out", "-o", metavar="DIR", required=True, help="the new model folder")


def _train(options: argparse.Namespace) -> int:
    from avtlm.training.interruption import Interrupted
    from avtlm.training.loop import train

    try:
        folder = train(options.config, options.overrides)
    except Interrupted as stopped:  # as a scheduler asked, which takes that for success
        folder = stopped.folder
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        print(f"model: {folder}")
    return 0


def _profile(options: argparse.Namespace) -> int:
    from avtlm.profile import profile

    return _figures(profile(options.config, options.overrides, options.steps), options.json)


def _plan(options: argparse.Namespace) -> int:
    from avtlm.plan import plan

    sizes = {name: getattr(options, name) for name in ("gpus", "hours", "device", "utilisation", "efficiency")}
    return _figures(plan(options.config, options.overrides, **sizes), options.json)


def _figures(found: Any, file: str | None) -> int:
    """Print a table, and write the same to a file."""
    if file is not None:
        from avtlm.files import write_text

        write_text(file, as_json(found.to_json()) + "\n")
    print(found.table())
    return 0


def _average(options: argparse.Namespace) -> int:
    from avtlm.training.averaging import average

    print(f"model: {average(options.models, options.out)}")
    return 0
