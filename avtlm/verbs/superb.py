"""The verb `avtlm superb`: what a frozen encoder knows, by SUPERB's tasks."""

import argparse
import sys
from pathlib import Path

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_device, add_json
from avtlm.verbs.printing import as_json, wrong

VERB = "superb"
CACHE = Path("runs/superb/cache")


def add_verb(verb: AddVerb) -> None:
    """Add ``superb``."""
    added = verb(
        VERB,
        _superb,
        "measure what a frozen encoder knows by SUPERB's tasks",
        "A small head learns from a weighted sum of the encoder's layers. Stopped and started again, it goes on where it was; with `all` a "
        "task that fails is reported and the others go on.",
    )
    added.add_argument("task", metavar="TASK", help="such as KS, SID, PR or ASR; all takes every corpus in the folders of --data")
    added.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="settings: projection=128 crop_seconds=4; of one task with all: KS:batch=64"
    )
    added.add_argument("--model", metavar="DIR", required=True, help="a model folder with an encoder of sound, or fbank")
    added.add_argument("--data", metavar="DIR", required=True, help="a folder with a task.json, or of such folders")
    added.add_argument("--out", "-o", metavar="DIR", required=True, help="where results and heads go")
    added.add_argument("--steps", type=int, metavar="N", help="updates (default: those of the benchmark)")
    added.add_argument("--batch", type=int, metavar="N", help="clips of a batch")
    added.add_argument("--lr", type=float, metavar="X", help="learning rate")
    added.add_argument("--lr-sweep", metavar="X,Y,...", help="learning rates to choose among on dev")
    added.add_argument("--seed", type=int, metavar="N", help="of everything that is drawn (default: 0)")
    added.add_argument("--cache", metavar="DIR", default=str(CACHE), help=f"where hidden states are kept (default: {CACHE})")
    added.add_argument("--no-cache", action="store_true", help="compute hidden states whenever they are needed")
    add_device(added)
    add_json(added)


def _superb(options: argparse.Namespace) -> int:
    from avtlm.evaluation.superb.run import Settings, run
    from avtlm.evaluation.superb.tables import beside_published

    rates: tuple[float, ...] = ()
    if options.lr_sweep is not None:
        try:
            rates = tuple(float(rate) for rate in options.lr_sweep.split(","))
        except ValueError:
            return wrong(f"--lr-sweep {options.lr_sweep}: give numbers with commas between them, such as 1e-3,1e-4.")
        if options.lr is not None:
            return wrong("--lr and --lr-sweep: give one of them.")
        if len(set(rates)) < len(rates) or min(rates) <= 0:
            return wrong(f"--lr-sweep {options.lr_sweep}: give different numbers above 0.")
    given = [("steps", options.steps), ("batch", options.batch), ("lr", options.lr), ("seed", options.seed)]
    overrides = (*options.overrides, *(f"{name}={value}" for name, value in given if value is not None))
    settings = Settings(
        overrides, rates, None if options.no_cache else Path(options.cache), options.device, lambda line: print(line, file=sys.stderr)
    )
    report = run(options.task, options.model, options.data, options.out, settings)
    if options.json:
        print(as_json(report.to_json()))
    elif report.outcomes:
        print(beside_published(report.model, report.parameters, report.values))
    for label, sentence in report.failures.items():
        print(f"avtlm: {label}: {sentence}", file=sys.stderr)
    return 1 if report.failures else 0
