"""Cases of wav2vec 2.0 and its kin in fairseq, fine-tuned with CTC."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm import config
from avtlm.convert.names.wav2vec2 import FAIRSEQ_CTC, System, fairseq_name, rename
from avtlm.convert.options.wav2vec2 import fairseq
from avtlm.decoding.greedy import ctc_greedy
from avtlm.nn.attention import padding_mask
from avtlm.objectives.ctc import ctc_loss
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.systems.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from avtlm.text.vocabulary import EOS, PAD, Vocabulary
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import SPECIALS, batch_of, build, gradients, load, options_of

NAMES: dict[str, System] = {"wav2vec2": "wav2vec2", "hubert": "hubert", "data2vec_audio": "data2vec", "multi2vec": "mt4ssl"}
# Options that tell one pre-trained model from another where it does not say what it is.
SIGNS: dict[str, System] = {"ce_loss": "mt4ssl", "mse_loss": "mt4ssl", "average_top_k_layers": "data2vec", "label_rate": "hubert"}
# Options of fine-tuning that change the network, there and in the options of the network itself; the others show in training alone.
OVERRIDES = ("feature_grad_mult",)
TRAINING = (
    *("w2v_path", "no_pretrained_weights", "dropout_input", "final_dropout", "dropout", "attention_dropout", "activation_dropout"),
    *("apply_mask", "mask_length", "mask_prob", "mask_selection", "mask_other", "no_mask_overlap", "mask_min_space", "require_same_masks"),
    *("mask_dropout", "mask_channel_length", "mask_channel_prob", "mask_channel_selection", "mask_channel_other", "mask_channel_min_space"),
    *("no_mask_channel_overlap", "mask_channel_before", "layerdrop", "drop_path", "update_alibi", "w2v_args", "offload_activations"),
    *("ddp_backend", "zero_mask", "load_ema", "layer_decay", "freeze_regex", "post_process"),
)


def pretrained_system(values: Mapping[str, Any]) -> System:
    """Which model was fine-tuned."""
    name = values.get("_name")
    if name is not None and name not in NAMES:
        raise CaseError(f"case.json: config.w2v_model: {name} is no model that is replayed; there are {', '.join(NAMES)}.")
    return NAMES[name] if name is not None else next((system for sign, system in SIGNS.items() if sign in values), "wav2vec2")


def ctc_case(case: Case, check: Check) -> None:
    tuning = dict(case.config.get("ctc", {}))
    values = case.config["w2v_model"] | case.config.get("arg_overrides", {}) | {key: tuning.pop(key) for key in OVERRIDES if key in tuning}
    system, options = pretrained_system(values), options_of(values, "w2v_model")
    units = (SPECIALS + 1,) if system in ("hubert", "mt4ssl") else ()  # of a head that is dropped
    settings = fairseq(options, system, units, normalise=bool(case.config.get("normalize", False)), official=True)
    options.finish()
    head = options_of(tuning, "ctc")
    weight, mode = float(head.take("blank_weight", 0.0)), head.choose("blank_mode", "add", {"add": "add", "set": "set"})
    frozen = head.take("freeze_finetune_updates", 0) > case.config.get("num_updates", 0)
    impossible_is_zero, by_sentence = (_switch(case, head.take(key, ""), key) for key in ("zero_infinity", "sentence_avg"))
    for key in TRAINING:
        head.take(key, False)
    head.finish()
    # The units of HuBERT stay in the official model, though nothing is compared with them any more.
    state = rename({key: each for key, each in case.state.items() if key != f"{FAIRSEQ_CTC}label_embs_concat"}, system, "fairseq")
    encoder = build(system, settings)
    model = recognizer(settings, encoder, len(state["ctc.bias"])).eval()
    load(model, state)
    assert model.ctc is not None
    batch = batch_of(case.inputs["source"], case.inputs.get("padding_mask"))
    with torch.no_grad() if frozen else contextlib.nullcontext():
        encoded, lengths = encoder.encode(batch)
    raw = model.ctc(encoded)
    padding = padding_mask(lengths, raw.shape[1])
    check.equal("padding_mask_out", padding)
    blank = F.one_hot(torch.tensor(0), raw.shape[2]).bool()
    # HuBERT's own class knows no weight of blanks, and what it writes at padded frames goes into a copy.
    plain = "hubert_asr" in case.official
    logits = raw if plain else _ruled(raw, blank, padding, weight, mode)
    again = _ruled(logits, blank, padding, weight, mode) if weight and not plain else logits
    check.forward("encoder_out", _stored_form(case, "encoder_out", raw, logits).transpose(0, 1))
    check.forward("logits", logits.transpose(0, 1))
    # The official function adds the weight in place, so that a second call on the same output adds it twice.
    check.forward("log_probs", _stored_form(case, "log_probs", logits.log_softmax(-1), again.log_softmax(-1)).transpose(0, 1))
    target, symbol = case.inputs["target"], int(case.config.get("blank", 0))
    symbols = [row[(row != PAD) & (row != EOS)] for row in target]
    loss = ctc_losses(logits, lengths, symbols, symbol, impossible_is_zero).sum()
    check.loss("loss", loss)
    check.equal("sample_size", len(target) if by_sentence else sum(map(len, symbols)))
    for row, best in enumerate(ctc_greedy(logits.log_softmax(-1), lengths, symbol)):
        check.equal(f"greedy_ids_{row}", torch.tensor(best.tokens, dtype=torch.long))
    batch_norm = settings.encoder.position_norm == "batch"
    gradients(check, model, loss, lambda key: fairseq_name(key, system, batch_norm=batch_norm))


def recognizer(settings: SpeechEncoderConfig, encoder: SpeechEncoder, symbols: int) -> Recognizer:
    """An encoder with a head over so many symbols, also over fewer than a vocabulary has special ones."""
    vocabulary = Vocabulary.tokens([f"t{number:05d}" for number in range(symbols - SPECIALS)])
    model = Recognizer(RecognizerConfig(encoder=config.to_dict(settings)), encoder, vocabulary)
    model.ctc = torch.nn.Linear(encoder.dim, symbols)
    return model


def ctc_losses(logits: Tensor, lengths: Tensor, symbols: Sequence[Tensor], blank: int, zero_infinity: bool) -> Tensor:
    """The loss of every row; of a row that does not fit into its frames 0, or infinite."""
    each = []
    for row, target in enumerate(symbols):
        loss = ctc_loss(logits[row : row + 1], lengths[row : row + 1], target[None], torch.tensor([len(target)]), blank)
        impossible = bool(loss.logs["ctc_too_short"][0]) and not zero_infinity
        each.append(loss.value + float("inf") if impossible else loss.value)
    return torch.stack(each)


def _switch(case: Case, told: bool | str, name: str) -> bool:
    """An option of the criterion: from the options, from config itself, or from the name of the criterion with its arguments."""
    if told != "":
        return bool(told)
    if name in case.config:
        return bool(case.config[name])
    match = re.search(rf"\b{name}=(\w+)", str(case.description.get("criterion", "")))
    return match is None or match[1] != "False"


def _ruled(logits: Tensor, blank: Tensor, padding: Tensor, weight: float, mode: str) -> Tensor:
    """The weight of blanks, and nothing but blanks at padded frames."""
    if weight:
        logits = torch.where(blank, logits + weight if mode == "add" else torch.full_like(logits, weight), logits)
    return torch.where(padding[..., None], torch.where(blank, 0.0, float("-inf")), logits)


def _stored_form(case: Case, name: str, first: Tensor, second: Tensor) -> Tensor:
    """Of what the official code changes in place, the form that a case shows: before the change or after it."""
    expected = case.outputs.get(name)
    if expected is None or expected.shape != first.transpose(0, 1).shape:
        return first

    def error(form: Tensor) -> float:
        away = (form.detach().transpose(0, 1) - expected).abs()
        return float(away.masked_fill(form.transpose(0, 1) == expected, 0.0).nan_to_num(nan=float("inf")).max())

    return min((first, second), key=error)


ADAPTERS = [
    (lambda case: case.official.startswith("fairseq.models.wav2vec.wav2vec2_asr.Wav2VecCtc"), ctc_case),
    (lambda case: case.official.startswith("fairseq.models.hubert.hubert_asr.HubertCtc"), ctc_case),
]
