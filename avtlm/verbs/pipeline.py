"""The verb `avtlm pipeline`: stages of training in a row, each starting from the one before."""

import argparse
import sys

from avtlm.verbs import AddVerb
from avtlm.verbs.printing import wrong

VERB = "pipeline"


def add_verb(verb: AddVerb) -> None:
    """Add ``pipeline``."""
    added = verb(
        VERB,
        _pipeline,
        "train in stages, each starting from the one before",
        "Finished stages are kept and a broken one goes on: give the same command again. A stage of which a setting, or the model that it "
        "starts from, has changed is refused.",
    )
    added.add_argument("configs", metavar="CONFIG", nargs="+", help="YAML files in the order of the stages, then KEY=VALUE or N:KEY=VALUE")
    added.add_argument("--again", action="store_true", help="delete and train anew stages of which something has changed")


def _pipeline(options: argparse.Namespace) -> int:
    from avtlm.training.interruption import Interrupted
    from avtlm.training.pipeline import pipeline

    overrides = [word for word in options.configs if "=" in word]
    configs = [word for word in options.configs if "=" not in word]
    if not configs:
        return wrong("pipeline: no configuration is given, only changes to one; name YAML files.")
    try:
        folder = pipeline(configs, overrides, options.again, lambda line: print(line, file=sys.stderr))
    except Interrupted as stopped:  # as a scheduler asked, which takes that for success
        print(f"avtlm: stopped; the same command goes on from {stopped.folder}.", file=sys.stderr)
        return 0
    print(f"model: {folder}")
    return 0
