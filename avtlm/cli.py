"""`avtlm VERB`: read the arguments, call the function of the library that bears the verb's name, print what it returns.

Exit codes: 0 done, 1 failed, 2 wrong use (arguments or configuration), 130 stopped by Ctrl-C. Results go to standard output; errors (one
sentence) and progress to standard error. The library is imported inside the verbs, so that the help is there at once. What a verb is asked
and what it does stands together in verbs/; tests/test_cli.py has the options of all verbs in one place.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from avtlm import __version__
from avtlm.memory import use_huge_pages
from avtlm.verbs import (
    convert,
    evaluate,
    export,
    hub,
    info,
    label,
    pipeline,
    report,
    sounds,
    speaking,
    superb,
    training,
    transcribe,
    units,
    visualize,
)
from avtlm.verbs.printing import sentence

# What adds the verbs, in the order of the help.
ADDED = (
    training.add_verbs,
    units.add_units,
    transcribe.add_verb,
    speaking.add_verbs,
    evaluate.add_verb,
    training.add_average,
    label.add_verb,
    visualize.add_verb,
    convert.add_verb,
    pipeline.add_verb,
    report.add_verb,
    units.add_text_verbs,
    visualize.add_alignment,
    sounds.add_verbs,
    superb.add_verb,
    hub.add_verbs,
    export.add_verb,
    info.add_verbs,
)
TWO_WORDS = (units.TEXT2UNITS, units.REDUCE, visualize.ALIGNMENT)  # which are joined before they are parsed
DESCRIPTION = "Train and use models that read sound, lips and text together."
EPILOG = """\
examples:
  avtlm transcribe clip.mp4                          words from sound and lips, with the model of `make quickstart`
  avtlm transcribe clip.mp4 --modality v --srt       from the lips alone, as subtitles
  avtlm train configs/vatlm/tiny_pretrain.yaml optim.lr=1e-3
  avtlm evaluate manifest.jsonl --model runs/model --snr 10,0,-10
  avtlm synthesize "good morning" --model runs/tts --voice alice.npy -o morning.wav
  avtlm convert base_vox_433h.pt --system vatlm -o runs/vatlm
  avtlm info clip.mp4                                what a clip, a manifest or a model folder holds

`avtlm VERB --help` explains one verb.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code."""
    parser = _parser()
    options = parse(sys.argv[1:] if arguments is None else arguments, parser)
    if options.verb is None:
        parser.print_help()
        return 2
    level = logging.DEBUG if options.debug else logging.INFO if options.verb in ("train", "pipeline", "units") else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("avtlm").setLevel(level)
    use_huge_pages()
    verb: Callable[[argparse.Namespace], int] = options.run
    try:
        code = verb(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("avtlm: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone, which is its right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        print(f"avtlm: {sentence(error)}", file=sys.stderr)
        return 2 if _is_wrong_use(error) else 1


def parse(given: Sequence[str], parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """Arguments as options. Raises SystemExit for those that no verb has."""
    # A list such as -10,-5,0 begins like an option; one with a space before it does not.
    words = [f" {part}" if re.match(r"-[\d.]+,", part) else part for part in given]
    if " ".join(words[:2]) in TWO_WORDS:
        words[:2] = [" ".join(words[:2])]
    return (parser or _parser()).parse_args(words)


def _is_wrong_use(error: Exception) -> bool:
    from avtlm.plain_yaml import ConfigError

    return isinstance(error, ConfigError | argparse.ArgumentError)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error comes from")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("avtlm", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"avtlm {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    verbs = parser.add_subparsers(dest="verb", title="verbs", metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], summary: str, more: str = "") -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}", parents=[shared])
        added.set_defaults(run=run)
        return added

    for add in ADDED:
        add(verb)
    return parser


if __name__ == "__main__":
    sys.exit(main())
