"""Cases of metrics beyond error rates: translation, speakers, tagging, slots, diarization, separation, synthesis."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from avtlm.evaluation.bleu import corpus_bleu
from avtlm.evaluation.diarization import diarization_error
from avtlm.evaluation.slot_filling import slot_type_f1, slot_value_cer, slot_value_wer
from avtlm.evaluation.speaker import equal_error_rate, min_detection_cost
from avtlm.evaluation.speech_quality import cepstral_distances, mel_cepstral_distortion, si_sdr, warp
from avtlm.evaluation.tagging import tagging
from benchmarks.replay.case import Case, CaseError, Check

BLEU_OPTIONS = {"tokenize", "lowercase", "smooth_method", "smooth_value", "effective_order"}


def translation_case(case: Case, check: Check) -> None:
    bound = case.bound()
    for item in case.description["cases"]:
        unknown = set(item["args"]) - BLEU_OPTIONS
        if unknown:
            raise CaseError(f"cases.{item['name']}: sacreBLEU's options {', '.join(sorted(unknown))} are not among those of corpus_bleu.")
        score = corpus_bleu(item["hyps"], item["refs"], **item["args"])
        for name, ours in (
            ("score", score.bleu),
            ("bp", score.brevity_penalty),
            ("sys_len", score.hypothesis_words),
            ("ref_len", score.reference_words),
            ("chrf", score.chrf),
        ):
            check.value(f"cases.{item['name']}.{name}", ours, item[name], bound)
        for order, (ours, official) in enumerate(zip(score.precisions, item["precisions"], strict=True), 1):
            check.value(f"cases.{item['name']}.precisions.{order}", ours, official, bound)
        same = score.signature.rsplit("|version:", 1)[0] == item["signature"].rsplit("|version:", 1)[0]
        check.value(f"cases.{item['name']}.signature", float(same), 1.0, 0.0)


def speaker_case(case: Case, check: Check) -> None:
    bound = case.bound()
    for item in case.description["cases"]:
        name, labels, scores = item["name"], item["labels"], item["scores"]
        found = equal_error_rate(labels, scores)
        check.value(f"cases.{name}.eer", found.rate, item["eer"], bound)
        if "eer_threshold" in item:
            both = math.isinf(found.threshold) and math.isinf(item["eer_threshold"])
            check.value(f"cases.{name}.eer_threshold", 0.0 if both else found.threshold, 0.0 if both else item["eer_threshold"], bound)
        for key, official in item.items():
            if key.startswith("min_dcf_p"):
                ours = min_detection_cost(labels, scores, float(key.removeprefix("min_dcf_p")))
                check.value(f"cases.{name}.{key}", ours, official, bound)
        if "roc_auc" in item:
            auc = tagging(np.array(labels)[:, None], np.array(scores)[:, None]).auc[0]
            check.value(f"cases.{name}.roc_auc", float(auc), item["roc_auc"], bound)


def tagging_case(case: Case, check: Check) -> None:
    bound, stored = case.bound(), case.description
    found = tagging(np.array(stored["labels"]), np.array(stored["scores"]))
    for key, ours in (("ap_per_class", found.average_precision), ("auc_per_class", found.auc)):
        for index, official in enumerate(stored[key]):
            missing = official is None
            check.value(f"{key}.{index}", float(np.isnan(ours[index])) if missing else ours[index], 1.0 if missing else official, bound)
    for key, value in (
        ("map_over_classes_with_positives", found.mean_average_precision),
        ("torchmetrics_macro_over_classes_with_positives", found.mean_average_precision),
        ("map_sklearn_macro_all", found.mean_average_precision_of_all),
        ("d_prime_from_mean_auc", found.d_prime),
    ):
        if key in stored:
            check.value(key, value, stored[key], bound)


def slot_case(case: Case, check: Check) -> None:
    bound = case.bound()
    measures: dict[str, Callable[[list[tuple[str, str]]], Any]] = {
        "slot_type_f1": slot_type_f1,
        "slot_value_cer": lambda pairs: slot_value_cer(pairs).rate,
        "slot_value_wer": lambda pairs: slot_value_wer(pairs).rate,
    }
    for number, item in enumerate(case.description["cases"]):
        pairs = list(zip(item["refs"], item["hyps"], strict=True))
        for key in measures.keys() & item.keys():
            if item[key] is None:  # the official code divides by zero, ours says that there is nothing to score
                check.value(f"cases.{number}.{key}", float(_refuses(measures[key], pairs)), 1.0, 0.0)
            else:
                check.value(f"cases.{number}.{key}", measures[key](pairs), item[key], bound)


def _refuses(measure: Callable[[list[tuple[str, str]]], Any], pairs: list[tuple[str, str]]) -> bool:
    try:
        measure(pairs)
    except ValueError:
        return True
    return False


def diarization_case(case: Case, check: Check) -> None:
    official = case.description["result"]
    found = diarization_error(case.inputs["reference"].numpy(), case.inputs["hypothesis"].numpy())
    check.value("result.der", found.rate, official["der"], case.bound())
    for key, ours in (
        ("miss", found.missed),
        ("false_alarm", found.false_alarm),
        ("confusion", found.confusion),
        ("total", found.total),
    ):
        check.value(f"result.{key}", ours, official[key], 0.0)


def separation_case(case: Case, check: Check) -> None:
    estimate, target = case.inputs["estimate"].numpy(), case.inputs["target"].numpy()
    for name, zero_mean in (("si_sdr", False), ("si_sdr_zero_mean", True)):
        check.close(name, torch.from_numpy(si_sdr(estimate, target, zero_mean)), case.bound())


def distortion_case(case: Case, check: Check) -> None:
    stored, bound = case.description, case.bound()
    a, b = case.inputs["a"].numpy(), case.inputs["b"].numpy()
    distance = cepstral_distances(a, b)
    aligned = warp(distance)
    check.close("distance", torch.from_numpy(distance), bound)
    check.equal("path", torch.from_numpy(aligned.path))
    for key, ours in (
        ("mcd_dtw_db", mel_cepstral_distortion(a, b)),
        ("mcd_plain_truncated_db", mel_cepstral_distortion(a, b, align=False)),
        ("path_length", len(aligned.path)),
        ("accumulated_distance", aligned.total),
    ):
        if key in stored:
            check.value(key, ours, stored[key], bound)


ADAPTERS = [
    (lambda case: case.official.startswith("sacrebleu"), translation_case),
    (lambda case: "compute_eer" in case.official, speaker_case),
    (lambda case: "average_precision_score" in case.official, tagging_case),
    (lambda case: "slot_type_f1" in case.official, slot_case),
    (lambda case: {"reference", "hypothesis"} <= case.inputs.keys() and "der" in case.description.get("result", {}), diarization_case),
    (lambda case: "scale_invariant_signal_distortion_ratio" in case.official, separation_case),
    (lambda case: "mcd_dtw_db" in case.description, distortion_case),
]
