"""Cases of evaluation: word and character errors, mixing at a signal-to-noise ratio."""

import numpy as np
import torch

from avtlm.data.noise import mean_babble, mix_at_snr
from avtlm.evaluation.wer import character_errors, corpus_cer, corpus_wer, word_errors
from benchmarks.replay.case import Case, Check


def error_rate_case(case: Case, check: Check) -> None:
    rates = case.bound("rates")
    sentences = case.description["cases"]
    for number, sentence in enumerate(sentences):
        reference, hypothesis = sentence["ref"], sentence["hyp"]
        for kind, count, rate in (("words", word_errors, "wer"), ("chars", character_errors, "cer")):
            official = sentence[kind]
            errors, total = count(reference, hypothesis)
            # How errors divide into substitutions, deletions and insertions is not unique; their sum is.
            check.value(f"cases.{number}.{kind}.errors", errors, official["sub"] + official["dele"] + official["ins"], 0.0)
            check.value(f"cases.{number}.{kind}.{rate}", errors / max(total, 1), official[rate], rates)
    pairs = [(sentence["ref"], sentence["hyp"]) for sentence in sentences]
    for kind, found, rate in (("words", corpus_wer(pairs), "wer"), ("chars", corpus_cer(pairs), "cer")):
        official = case.description["corpus"][kind]
        check.value(f"corpus.{kind}.n_ref", found.words, official["n_ref"], 0.0)
        check.value(f"corpus.{kind}.errors", found.errors, official["sub"] + official["dele"] + official["ins"], 0.0)
        check.value(f"corpus.{kind}.{rate}", found.rate, official[rate], rates)
    for name, official in case.description.get("corpus_extra", {}).items():
        if name == "cer_without_spaces":
            check.value(f"corpus_extra.{name}", corpus_cer(pairs, spaces=False).rate, official, rates)


def mixing_case(case: Case, check: Check) -> None:
    inputs = case.inputs
    for name in case.outputs:
        first, _, rest = name.partition(".")
        if first == "float":
            rows = zip(inputs["speech_float"].numpy(), inputs["noise_float"].numpy(), strict=True)
            ours = [mix_at_snr(speech, noise, float(rest.removeprefix("snr"))) for speech, noise in rows]
            check.close(name, torch.from_numpy(np.stack(ours)), case.bound("float"))
        elif ".snr" in rest:
            noise, snr = rest.split(".snr", 1)
            # One unit of int16: the tolerance says so in words.
            check.close(name, torch.from_numpy(mix_at_snr(inputs[first].numpy(), inputs[f"noise_{noise}"].numpy(), float(snr))), 1.0)
        elif name == "babble":
            clips = [inputs[key].numpy() for key in sorted(inputs) if key.startswith("babble_src")]
            check.equal(name, torch.from_numpy(mean_babble(clips)))


ADAPTERS = [
    (lambda case: case.official.startswith("jiwer") and "cases" in case.description, error_rate_case),
    (lambda case: "AVHubertDataset.add_noise" in case.official and "mix_audio" in case.official, mixing_case),
]
