"""Cases of searches with several models: joint CTC/attention, words with an n-gram, transducers."""

import math
import tempfile
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avtlm.decoding.align import ctc_align
from avtlm.decoding.ctc_prefix import ctc_beam
from avtlm.decoding.greedy import ctc_greedy
from avtlm.decoding.joint import JointOptions, joint_beam
from avtlm.decoding.lexicon import LexiconDecoder, LexiconOptions
from avtlm.decoding.ngram import NGram
from avtlm.decoding.summed_words import SummedOptions, ctc_word_beam
from avtlm.decoding.transducer import transducer_beam, transducer_greedy, transducer_score
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.decoding import TIGHT, TableDecoder, TableLanguageModel, of_float32, of_rank

EVERYTHING = 5000  # a beam that nothing falls out of in cases that were enumerated
MOST = 3000  # a beam that all but nothing falls out of where any symbols may follow
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
    "pre_beam_key",
    "pre_beam_score_key",
    "pre_beam_ratio",
}


def joint_case(case: Case, check: Check) -> None:
    """ESPnet's batched search over tables."""
    config, inputs = case.config, case.inputs
    if set(config) - KNOWN:
        raise CaseError(f"case.json: config holds {sorted(set(config) - KNOWN)}, which this adapter does not know.")
    bound, end = case.bound("score"), config["V"] - 1
    options = JointOptions(
        beam=config["beam"],
        nbest=10**6,
        ctc_weight=config["ctc_weight"],
        lm_weight=config["lm_weight"],
        length_bonus=config["penalty"],
        pre_beam=config.get("pre_beam_key", config.get("pre_beam_score_key", "decoder")),
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
    for rank in range(min(config["nbest"], len(found))):
        hypothesis = of_rank(found, rank, case.outputs.get(f"hyp{rank}.yseq"), end, TIGHT)
        # At the limit ESPnet appends an end to every hypothesis, even to one that has just ended.
        twice = len(hypothesis.tokens) + 1 == limit
        check.equal(f"hyp{rank}.yseq", torch.tensor([end, *hypothesis.tokens, *[end] * (1 + twice)]))
        check.close(f"hyp{rank}.score", torch.tensor(hypothesis.score), of_float32(bound, hypothesis.score))
        for theirs, ours in NAMES.items():
            if ours in hypothesis.components:
                part = hypothesis.components[ours]
                check.close(f"hyp{rank}.score.{theirs}", torch.tensor(part), of_float32(bound, part))
    # All places of the beam end at the limit, for ESPnet also those that hold what CTC finds impossible; we keep no such hypotheses.
    early = sum(len(hypothesis.tokens) + 1 < limit for hypothesis in found)
    ended = torch.tensor(early + (config["beam"] if early < len(found) else 0))
    crowded = any(frames_of(hypothesis.tokens) + 1 >= config["T"] for hypothesis in found) and options.ctc_weight > 0
    if crowded and bool(case.outputs.get("n_ended", ended) > ended):
        check.skip("n_ended", "ESPnet goes on with hypotheses that have more symbols than there are frames; CTC finds them impossible.")
    else:
        check.equal("n_ended", ended)


def frames_of(tokens: Sequence[int]) -> int:
    """The fewest frames in which CTC can spell these tokens: a blank stands between equal ones."""
    return len(tokens) + sum(one == other for one, other in pairwise(tokens))


class TableTransducer:
    """Logits looked up by the last label; a frame is its table, flat: (symbols x symbols)."""

    def __init__(self, symbols: int) -> None:
        self.symbols = symbols

    def initial_state(self, rows: int) -> Tensor:
        return torch.zeros(rows, 0)

    def predict(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return tokens[:, None], state

    def join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        tables = encoded.unflatten(1, (self.symbols, self.symbols))
        return tables[torch.arange(len(tables)), predicted[:, 0]]


def transducer_case(case: Case, check: Check) -> None:
    """Probabilities of all short texts, the best of them, and the greedy path. The blank's row of a table is that of nothing said."""
    config, bound, expected = case.config, case.bound(), case.description
    table, sequences, blank = case.inputs["logits"], case.outputs["sequences"], config["blank"]
    model, lengths = TableTransducer(config["V"]), torch.tensor([len(table)])
    encoded = table.flatten(1)[None]
    sizes = (sequences >= 0).sum(1)
    many = len(sequences)
    scores = transducer_score(model, encoded.expand(many, -1, -1), lengths.expand(many), sequences, sizes, blank)
    check.close("log_probs", scores, bound)
    [found] = transducer_beam(model, encoded, lengths, beam=many, nbest=many, max_tokens=config["max_len"], blank=blank)
    listed = {tuple(label for label in row if label >= 0): place for place, row in enumerate(sequences.tolist())}
    best_first = torch.full((many,), float("-inf"), dtype=torch.double)
    for hypothesis in found:
        best_first[listed[hypothesis.tokens]] = hypothesis.score
    check.value("beam: largest difference", float((best_first - case.outputs["log_probs"]).abs().max()), 0.0, bound)
    for rank, (ours, theirs) in enumerate(zip_longest(found[: len(expected["nbest"])], expected["nbest"])):
        check.value(f"nbest {rank}: tokens differ", float(list(ours.tokens) != theirs["tokens"]), 0.0, 0.0)
        check.value(f"nbest {rank}: log_prob", ours.score, theirs["log_prob"], bound)
    greedy = expected["greedy"]
    [path] = transducer_greedy(model, encoded, lengths, blank, greedy["max_symbols_per_frame"])
    check.value("greedy: tokens differ", float(list(path.tokens) != greedy["tokens"]), 0.0, 0.0)
    check.value("greedy: path_log_prob", path.score, greedy["path_log_prob"], bound)
    texts = sorted((hypothesis.tokens for hypothesis in found), key=lambda text: listed[text])
    check.equal("sequences", torch.tensor([[*text, *[-1] * (sequences.shape[1] - len(text))] for text in texts]))


def words_case(case: Case, check: Check) -> None:
    """Words with an n-gram, by the two definitions of their score, and what flashlight and pyctcdecode find."""
    expected, config, log_probs = case.description, case.config, case.inputs["log_probs"]
    tokens, blank, delimiter = config["tokens"], config["blank"], config["delimiter"]
    ids = {token: number for number, token in enumerate(tokens)}
    exact = expected["tolerance"]["exact"]
    lexicon = [(word, tuple(ids[letter] for letter in word)) for word in config["words"]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lm.arpa"
        path.write_text(expected["arpa"], encoding="utf-8")
        model = NGram.read(path)
    for name, summed in (("exact_sum", True), ("exact_viterbi", False)):
        wanted, score = expected[name], "score_sum" if summed else "score_viterbi"
        options = SummedOptions(config["alpha"], config["beta"], beam=EVERYTHING, nbest=EVERYTHING, summed=summed)
        found = ctc_word_beam(log_probs, lexicon, model, options, blank, delimiter)
        for rank, (ours, theirs) in enumerate(zip(found, wanted)):
            key = f"{name} {rank}"
            check.value(f"{key}: words differ", float(ours.text.split() != theirs["words"] or list(ours.tokens) != theirs["tokens"]), 0, 0)
            check.value(f"{key}: score", ours.score, theirs[score], exact)
            check.value(f"{key}: lm", ours.components["lm"], theirs["lm_ln"], exact)
            check.value(f"{key}: ctc", ours.components["ctc"], theirs["ctc_sum" if summed else "ctc_viterbi"], exact)
        check.value(f"{name}: hypotheses missing", float(max(0, len(wanted) - len(found))), 0, 0)
    [free] = ctc_beam(log_probs[None], torch.tensor([len(log_probs)]), MOST, blank, MOST)
    for rank, (one, theirs) in enumerate(zip(free, expected["lexicon_free"])):
        check.value(f"lexicon_free {rank}: tokens differ", float(list(one.tokens) != theirs["tokens"]), 0, 0)
        check.value(f"lexicon_free {rank}: sum", one.score, theirs["log_sum"], exact)
        check.value(f"lexicon_free {rank}: viterbi", ctc_align(log_probs, one.tokens, blank)[2], theirs["log_viterbi"], exact)
    [greedy] = ctc_greedy(log_probs[None], torch.tensor([len(log_probs)]), blank)
    check.value("greedy: tokens differ", float(list(greedy.tokens) != expected["greedy"]), 0, 0)
    settings = LexiconOptions(EVERYTHING, 1e9, config["alpha"] * math.log(10), config["beta"], 0.0, EVERYTHING)
    closed = [(word, (*spelling, delimiter)) for word, spelling in lexicon]
    spelled = LexiconDecoder(closed, model, settings, blank, delimiter).decode(log_probs)
    for name, bound in (("flashlight", expected["tolerance"]["flashlight"]), ("flashlight_emulated", TIGHT)):
        for rank, (each, theirs) in enumerate(zip_longest(spelled[: len(expected[name])], expected[name])):
            check.value(f"{name} {rank}: words differ", float(list(each.words) != theirs["words"]), 0, 0)
            check.value(f"{name} {rank}: score", each.score, theirs["score"], bound)
    texts: dict[str, float] = {}
    for one in free:
        text = " ".join("".join(" " if token == delimiter else tokens[token] for token in one.tokens).split())
        texts[text] = float(np.logaddexp(texts.get(text, -math.inf), one.score))
    for theirs in expected["pyctcdecode"]:
        check.value(f"pyctcdecode {theirs['text']!r}", texts[theirs["text"]], theirs["logit_score"], expected["tolerance"]["pyctcdecode"])


ADAPTERS = [
    (lambda case: "BatchBeamSearch" in case.official and "ctc_log_probs" in case.inputs, joint_case),
    (lambda case: "transducer" in str(case.description.get("what")) and "sequences" in case.outputs, transducer_case),
    (lambda case: "exact_sum" in case.description and "arpa" in case.description, words_case),
]
