"""Cases of whole checkpoint files: converted, and compared with the weights, dictionaries and token ids that they state."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from avtlm import checkpoint, systems
from avtlm.convert.container import read_container
from avtlm.convert.export import to_fairseq
from avtlm.convert.fairseq import convert
from avtlm.convert.names.speecht5 import POST_NORM_UNUSED, UNUSED, speech2c_rules, speech2c_unused
from avtlm.convert.names.transformer import find_name
from avtlm.convert.names.vatlm import IGNORED
from avtlm.convert.speecht5 import rules_of
from avtlm.data.batching import Batch
from avtlm.nn.transformer import Decoder
from avtlm.systems.speech2c import Speech2C
from avtlm.systems.speecht5 import SpeechT5
from avtlm.text.vocabulary import EOS, PAD, UNKNOWN, load_vocabulary
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import batch_of


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


def sequence_case(case: Case, check: Check) -> None:
    """A file of SpeechT5 or Speech2C: its weights in our folder, what the model says, and, of SpeechT5, the file written again."""
    [file] = case.description["files"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = convert(case.folder / file, None, Path(scratch) / "model")
        model, _ = systems.load_encoder(folder)
        back = read_container(to_fairseq(folder, Path(scratch) / "back.pt")).weights if isinstance(model, SpeechT5) else {}
        returned = {key: tensor.read().clone() for key, tensor in back.items()}
    weights = model.state_dict()
    original = read_container(case.folder / file).weights
    if isinstance(model, SpeechT5):
        check.value("keys that do not come back", len(set(returned) ^ set(original)), 0.0, 0.0)
    for name in case.outputs:
        key = name.removeprefix("model.")
        if key == name:
            continue
        if isinstance(model, SpeechT5):
            dead = UNUSED.fullmatch(key) or (not model.config.encoder.norm_first and POST_NORM_UNUSED.fullmatch(key))
            found = None if dead else weights[find_name(rules_of(model.config), key, "SpeechT5")]
        else:
            assert isinstance(model, Speech2C)
            decoder = model.config.decoder
            dead = speech2c_unused(model.config.encoder.norm_first, decoder.norm_first).fullmatch(key)
            rules = speech2c_rules(model.config.waveform.norm, decoder.tie_embeddings)
            found = None if dead else weights[find_name(rules, key, "Speech2C")]
        if found is None:  # the official model holds it and never uses it; what was read off the file is what it says
            check.equal(name, original[key].read())
            continue
        check.equal(name, found)
        if returned:
            check.value(f"back: {key}", float((returned[key].double() - case.outputs[name].double()).abs().max()), 0.0, 0.0)
    _says(case, check, model)


@torch.no_grad()
def _says(case: Case, check: Check, model: torch.nn.Module) -> None:
    """What a model of a file makes of the case's inputs."""
    tokens = case.inputs["prev_output_tokens"]
    batch = batch_of(case.inputs["source"], case.inputs.get("padding_mask"))
    assert isinstance(model, SpeechT5 | Speech2C)
    encoded, lengths = model.encode(batch)
    check.forward("encoder_out", encoded)
    assert isinstance(model.decoder, Decoder)
    logits = model.decoder(tokens, encoded, lengths)
    if isinstance(model, Speech2C):
        check.forward("decoder_logits", logits)
        return
    check.forward("text_logits", logits)
    check.forward("ctc_logits", model.ctc_logits(encoded).transpose(0, 1))
    text = Batch(batch.ids, "text", text=tokens, text_lengths=(tokens != PAD).sum(1))
    check.forward("text_encoder_out", model.encode(text)[0])


ADAPTERS = [
    (lambda case: "pickled_globals" in case.description and case.description.get("system") in ("SpeechT5", "Speech2C"), sequence_case),
    (lambda case: "pickled_globals" in case.description, checkpoint_case),
]
