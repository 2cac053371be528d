"""The verbs of `avtlm` around models on a hub: ``pull`` and ``push``."""

import argparse

from avtlm.verbs import AddVerb


def add_verbs(verb: AddVerb) -> None:
    """Add ``pull`` and ``push``."""
    pull = verb(
        "pull",
        _pull,
        "fetch a model from the Hugging Face hub",
        "Prints its folder, which lies in the cache of the hub. Every file is checked; pickles are never fetched. Needs the extra hub.",
    )
    push = verb(
        "push",
        _push,
        "send a model folder to the Hugging Face hub",
        "Prints the address of the commit. HF_TOKEN or `hf auth login` names the account. Needs the extra hub.",
    )
    push.add_argument("model", metavar="DIR", help="a model folder")
    for each in (pull, push):
        each.add_argument("name", metavar="OWNER/NAME", help="the model on the hub")
    pull.add_argument("--revision", metavar="NAME", help="branch, tag or commit (default: the newest)")
    push.add_argument("--licence", metavar="ID", help="for the model card, such as cc-by-4.0 (default: what the card says)")
    push.add_argument("--private", action="store_true", help="a new model is visible to its owner alone")


def _pull(options: argparse.Namespace) -> int:
    from avtlm.hub import pull

    print(pull(options.name, options.revision))
    return 0


def _push(options: argparse.Namespace) -> int:
    from avtlm.hub import push_to_hub

    print(push_to_hub(options.model, options.name, options.licence, options.private))
    return 0
