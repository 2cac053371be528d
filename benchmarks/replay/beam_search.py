"""Cases of searches with several models: joint CTC/attention, words with an n-gram, transducers."""

import torch

from avtlm.decoding.joint import JointOptions, joint_beam
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.decoding import TableDecoder, TableLanguageModel

TIGHT = 1e-5  # for scores that official code computes in float32, whatever the case allows
NAMES = {"decoder": "attention", "ctc": "ctc", "lm": "lm", "length_bonus": "length"}  # of components, theirs and ours
KNOWN = {
    "T",
    "V",
    "L",
    "seed",
    "beam",
    "ctc_weight",
    "lm_weight",
    "penalty",
    "maxlenratio",
    "nbest",
    "pre_beam_score_key",
    "pre_beam_ratio",
}


def joint_case(case: Case, check: Check) -> None:
    """ESPnet's batched search over tables."""
    config, inputs = case.config, case.inputs
    if set(config) - KNOWN:
        raise CaseError(f"case.json: config holds {sorted(set(config) - KNOWN)}, which this adapter does not know.")
    bound, end = min(case.bound("score"), TIGHT), config["V"] - 1
    options = JointOptions(
        beam=config["beam"],
        nbest=10**6,
        ctc_weight=config["ctc_weight"],
        lm_weight=config["lm_weight"],
        length_bonus=config["penalty"],
        pre_beam=config.get("pre_beam_score_key", "decoder"),
        pre_beam_ratio=config.get("pre_beam_ratio", 1.5),
        max_len_ratio=config["maxlenratio"],
        start=end,
        end=end,
        never=(),
    )
    log_probs, lengths = inputs["ctc_log_probs"][None], torch.tensor([config["T"]])
    tables = inputs["att"][None].expand(1, *inputs["att"].shape)
    [found] = joint_beam(TableDecoder(), tables, lengths, log_probs, options, TableLanguageModel(inputs["lm"]))
    limit = options.limit(config["T"])
    for rank, hypothesis in enumerate(found[: config["nbest"]]):
        # At the limit ESPnet appends an end to every hypothesis, even to one that has just ended.
        twice = len(hypothesis.tokens) + 1 == limit
        check.equal(f"hyp{rank}.yseq", torch.tensor([end, *hypothesis.tokens, *[end] * (1 + twice)]))
        check.close(f"hyp{rank}.score", torch.tensor(hypothesis.score), bound)
        for theirs, ours in NAMES.items():
            if ours in hypothesis.components:
                check.close(f"hyp{rank}.score.{theirs}", torch.tensor(hypothesis.components[ours]), bound)
    # All places of the beam end at the limit, for ESPnet also those that hold what CTC finds impossible; we keep no such hypotheses.
    early = sum(len(hypothesis.tokens) + 1 < limit for hypothesis in found)
    check.equal("n_ended", torch.tensor(early + (config["beam"] if early < len(found) else 0)))


ADAPTERS = [(lambda case: "BatchBeamSearch" in case.official and "ctc_log_probs" in case.inputs, joint_case)]
