"""Cases of whole checkpoint files: converted, and compared with the weights, dictionaries and token ids that they state."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from avtlm import checkpoint
from avtlm.convert.container import read_container
from avtlm.convert.export import to_fairseq
from avtlm.convert.fairseq import convert
from avtlm.convert.names.vatlm import IGNORED
from avtlm.text.vocabulary import EOS, UNKNOWN, load_vocabulary
from benchmarks.replay.case import Case, CaseError, Check


def checkpoint_case(case: Case, check: Check) -> None:
    expected = case.description.get("expected", {})
    for file in case.description["files"]:
        name, stated = Path(file).stem, load_file(case.folder / f"{Path(file).stem}.safetensors")
        with tempfile.TemporaryDirectory() as scratch:
            folder = convert(case.folder / file, None, Path(scratch) / name, origin(case, file))
            back = read_container(to_fairseq(folder, Path(scratch) / file))
            # Dummies that the official code never fills, and layers that it never uses, do not come back.
            stated = {key: tensor for key, tensor in stated.items() if not IGNORED.fullmatch(key)}
            returned = {key: tensor for key, tensor in back.weights.items() if not IGNORED.fullmatch(key)}
            if set(returned) != set(stated):
                raise CaseError(f"{file}: other tensors came back, {sorted(set(returned) ^ set(stated))[:4]}.")
            for key, tensor in stated.items():
                error = (returned[key].read().double() - tensor.double()).abs().max()
                check.value(f"{name}.{key}", float(error), 0.0, 0.0)
            check.value(f"{name}.km_dictionary_size", len(back.units[0]), expected["km_dictionary_size"], 0.0)
            head = expected["km_symbols_head"]
            check.value(f"{name}.km_symbols_head", back.units[0][: len(head)] == head, True, 0.0)
            if checkpoint.load_config(folder).get("task") == "recognition":
                transcripts(folder, case, check)


def origin(case: Case, file: str) -> Path | None:
    """The pre-trained file of a case, for a fine-tuned one that does not tell the configuration of its encoder."""
    model = read_container(case.folder / file).model
    others = [case.folder / each for each in case.description["files"] if each != file]
    return others[0] if "w2v_args" in model and not model["w2v_args"] and others else None


def transcripts(folder: Path, case: Case, check: Check) -> None:
    """The vocabulary of a converted recogniser."""
    expected = case.description["expected"]
    vocabulary = load_vocabulary(folder)
    check.value("target_dictionary_size", len(vocabulary), expected["target_dictionary_size"], 0.0)
    head = expected["target_symbols_head"]
    check.value("target_symbols_head", vocabulary.symbols[: len(head)] == head, True, 0.0)
    for number, (text, ids, decoded) in enumerate(zip(expected["texts"], expected["token_ids"], expected["decoded"], strict=True)):
        found = [*vocabulary.encode(text.lower()), EOS]
        if len(found) != len(ids):
            raise CaseError(f"text {number}: {len(found)} tokens instead of {len(ids)}.")
        check.value(f"token_ids.{number}", float((torch.tensor(found) - torch.tensor(ids)).abs().max()), 0.0, 0.0)
        if UNKNOWN not in ids:  # the official code writes <unk>, ours leaves it out
            check.value(f"decoded.{number}", vocabulary.decode(ids) == decoded, True, 0.0)


ADAPTERS = [(lambda case: "pickled_globals" in case.description, checkpoint_case)]
