"""Official checkpoints for tests: stored weights of official models in the container of fairseq's trainer, with pickled dictionaries."""

import types
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm.convert.official_file import Dictionary, OfficialObject, Pickler, SentencepieceBPE, SentencePieceProcessor, dictionary
from avtlm.convert.options.avhubert import DECODER
from avtlm.text.subwords import Subwords
from avtlm.text.vocabulary import SPECIALS
from tests.golden_case import GoldenCase

TASK = {"stack_order_audio": 4, "normalize": True, "sample_rate": 25, "image_crop_size": 88, "image_mean": 0.421, "image_std": 0.165}
CRITERION = ("pred_masked_weight", "pred_nomask_weight", "loss_weights", "banlance_loss_weights")
# What a case notes besides the options of its model.
NOTES = ("lens", "tgt_lens", "uni_lens", "beams", "max_len_a", "max_len_b", "fit_steps", "vocab", "num_clusters", "sample_rate", *CRITERION)
FINE_TUNING = ("final_dropout", "freeze_finetune_updates", "apply_mask")


def write(path: Path, content: Any) -> Path:
    """As the official trainer would, with classes of fairseq."""
    torch.save(content, path, pickle_module=types.SimpleNamespace(__name__="pickle", Pickler=Pickler))
    return path


def units(count: int) -> Dictionary:
    return dictionary([*SPECIALS, *map(str, range(count))])


def pieces(count: int) -> Subwords:
    """A SentencePiece model of exactly so many pieces."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return Subwords.train([" ".join(letters[i:] + letters[:i] for i in range(26))] * 4, count)


def pretraining_cfg(case: GoldenCase, name: str) -> dict[str, Any]:
    options = {key: value for key, value in case.config.items() if key not in (*NOTES, *FINE_TUNING, *DECODER)}
    return {
        "_name": None,
        "task": {"_name": f"{name}_pretraining", **TASK},
        "model": {"_name": name, **options},
        "criterion": {"_name": name, **{key: case.config[key] for key in CRITERION if key in case.config}},
    }


def pretrained(case: GoldenCase, name: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """The content of a pre-training checkpoint."""
    state = case.state if state is None else state
    dictionaries = [units(case.config["num_clusters"][0])]
    return {"cfg": pretraining_cfg(case, name), "model": OrderedDict(state), "task_state": {"dictionaries": dictionaries}}


def fine_tuned(case: GoldenCase, name: str, head: str, w2v_args: bool = True) -> dict[str, Any]:
    """The content of a fine-tuned checkpoint; without ``w2v_args`` as VATLM's."""
    model = {
        "_name": f"{name}_{head}",
        "w2v_path": "/path/to/pretrained.pt",
        "w2v_args": pretraining_cfg(case, name) if w2v_args else None,
        "normalize": "${task.normalize}",
        "mask_channel_prob": 0.5,  # set in every released file, without effect
        "layerdrop": 0.1,
        "feature_grad_mult": 1.0,
        **{key: case.config[key] for key in (*FINE_TUNING, *(DECODER if head == "seq2seq" else ())) if key in case.config},
    }
    count = case.config["vocab"]
    state: dict[str, Any] = {"dictionaries": [units(case.config["num_clusters"][0])]}
    if head == "seq2seq":
        vocabulary = pieces(count)
        state["target_dictionary"] = dictionary(vocabulary.symbols)
        state["s2s_tokenizer"] = SentencepieceBPE({"sp": SentencePieceProcessor(vocabulary.serialised)})
    else:
        state["target_dictionary"] = dictionary([*SPECIALS, "|", *"abcdefghijklmnopqrstuvwxyz"[: count - 5]])
    task = {"_name": f"{name}_pretraining", **TASK, "modalities": ["video", "audio"], "fine_tuning": True}
    criterion = {"_name": "label_smoothed_cross_entropy" if head == "seq2seq" else "ctc", "label_smoothing": 0.1}
    return {"cfg": {"task": task, "model": model, "criterion": criterion}, "model": OrderedDict(case.state), "task_state": state}


__all__ = ["OfficialObject", "fine_tuned", "pieces", "pretrained", "pretraining_cfg", "units", "write"]
