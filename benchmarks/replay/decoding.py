"""Cases of searches: CTC prefix scores, beam search with an attention decoder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from avtlm.convert.options import Options
from avtlm.decoding.align import ctc_align
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.ctc_prefix import PrefixScorer
from avtlm.decoding.greedy import ctc_greedy
from avtlm.decoding.lexicon import LexiconDecoder, LexiconOptions, Spelled, read_lexicon
from avtlm.decoding.ngram import NGram
from avtlm.decoding.result import Hypothesis
from avtlm.text.vocabulary import EOS
from benchmarks.replay.case import Case, Check

LOG_ZERO = -1e9  # ESPnet writes -1e10 for log 0; only what lies above this is a score
TIGHT, ROUNDING = 1e-5, 2e-6  # for scores that official code computes in float32, whatever the case allows; of large ones, their share


@dataclass
class TableMemory:
    tables: Tensor  # (utterances, positions, previous token, next token): logits

    def select(self, rows: Tensor) -> "TableMemory":
        return TableMemory(self.tables[rows])


@dataclass
class Place:
    """How many tokens there are."""

    count: int = 0

    def reorder(self, rows: Tensor) -> "Place":
        del rows
        return self


class TableDecoder:
    """Logits looked up by the number of previous tokens and the last one; the "encoder's output" is the tables."""

    def project_memory(self, encoded: Tensor, lengths: Tensor) -> TableMemory:
        del lengths
        return TableMemory(encoded)

    def initial_state(self, batch: int) -> Place:
        del batch
        return Place()

    def step(self, tokens: Tensor, memory: TableMemory, state: Place) -> tuple[Tensor, Place]:
        place = min(state.count, memory.tables.shape[1] - 1)
        rows = torch.arange(len(tokens)) // (len(tokens) // len(memory.tables))
        return memory.tables[rows, place, tokens], Place(state.count + 1)


class TableLanguageModel:
    """Log-probabilities from logits looked up by the last token."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def initial_state(self, batch: int) -> Place:
        del batch
        return Place()

    def step(self, tokens: Tensor, state: Place) -> tuple[Tensor, Place]:
        return self.table[tokens].log_softmax(-1), state


def of_rank(hypotheses: Sequence[Hypothesis], rank: int, theirs: Tensor | None, end: int, bound: float) -> Hypothesis:
    """The hypothesis of a rank; of those with the same score, which come in any order there, the one with the case's tokens."""
    said = [] if theirs is None else [token for token in theirs.tolist() if token != end]
    level = [each for each in hypotheses if abs(each.score - hypotheses[rank].score) <= bound]
    return next((each for each in level if list(each.tokens) == said), hypotheses[rank])


def of_float32(bound: float, score: float) -> float:
    """What two sums of log-probabilities may differ by if one of them is float32; a case may allow less."""
    return min(bound, max(TIGHT, ROUNDING * abs(score)))


def beam_case(case: Case, check: Check) -> None:
    """fairseq's search over tables.

    Its rule against repeated n-grams compares with the end of a padded buffer since version 0.12, where it never finds any but on a GPU.
    """
    config, inputs = case.config, case.inputs
    options = BeamOptions(
        beam=min(config["beam"], config["V"] - 1),  # as fairseq does
        nbest=min(config["beam"], config["V"] - 1),
        length_penalty=config["lenpen"],
        normalize=config["normalize"],
        min_len=config["min_len"],
        max_len_a=0,
        max_len_b=config["max_len_b"],
        no_repeat_ngram=0 if "0.12" in case.official else config["no_repeat"],
        unk_penalty=config["unkpen"],
        temperature=config["temperature"],
        lm_weight=config["lm_weight"],
        start=config["bos"],
    )
    model = TableLanguageModel(inputs["lm"]) if config["lm_weight"] else None
    found = attention_beam(TableDecoder(), inputs["att"], torch.ones(len(inputs["att"]), dtype=torch.long), options, model)
    for row, hypotheses in enumerate(found):
        for rank in range(len(hypotheses)):
            key = f"{row}.{rank}."
            hypothesis = of_rank(hypotheses, rank, case.outputs.get(f"{key}tokens"), EOS, TIGHT)
            scores = [*hypothesis.token_scores, hypothesis.components["end"]]
            bound = of_float32(case.bound("score"), sum(scores))
            check.equal(f"{key}tokens", torch.tensor([*hypothesis.tokens, EOS]))
            check.close(
                f"{key}score", torch.tensor(hypothesis.score).reshape(case.outputs.get(f"{key}score", torch.zeros(())).shape), bound
            )
            check.close(f"{key}positional_scores", torch.tensor(scores), bound)


def enumerated_case(case: Case, check: Check) -> None:
    """Prefix and sequence probabilities against all alignments written out."""
    bound, log_probs, prefixes = case.bound(), case.inputs["log_probs"], case.outputs["prefixes"]
    scorer = PrefixScorer(log_probs[None], torch.tensor([len(log_probs)]), case.config["blank"])
    found: dict[str, list[Tensor]] = {name: [] for name in ("log_prefix", "log_complete", "r_nonblank", "r_blank", "log_viterbi")}
    for prefix in prefixes.tolist():
        labels = tuple(label for label in prefix if label >= 0)
        state = scorer.start(torch.tensor([0]))
        for label in labels:
            state = scorer.advance(state, torch.tensor([0]), torch.tensor([label]))
        score = ctc_align(log_probs, labels, case.config["blank"])[2]
        values = (state.psi[0], state.complete()[0], state.in_label[0], state.in_blank[0], torch.tensor(score, dtype=torch.float64))
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    for name, values_ in found.items():
        check.close(name, torch.stack(values_), bound)
    check.skip("prefixes", "the prefixes that are scored.")


def espnet_case(case: Case, check: Check) -> None:
    config, inputs, bound = case.config, case.inputs, case.bound()
    eos, width, utterances = config["eos"], config["beams_per_utterance"], len(inputs["lengths"])
    scorer = PrefixScorer(inputs["log_probs"], inputs["lengths"], config["blank"])
    rows = torch.arange(utterances).repeat_interleave(width)

    def scores(name: str, ours: Tensor, known: Tensor | None = None) -> None:
        """Compare where ESPnet does not say log 0 (and frames are true)."""
        theirs = case.outputs[name]
        real = theirs > LOG_ZERO if known is None else (theirs > LOG_ZERO) & known
        check.close(name, torch.where(real, ours.to(theirs.dtype), theirs), bound)

    state = scorer.start(rows)
    for step in range(len(inputs["choices"])):
        psi = scorer.psi(state)
        psi[:, eos] = state.complete()
        scores(f"batch.step{step}.log_psi", psi)
        scores(f"batch.step{step}.local", psi - state.psi[:, None], case.outputs[f"batch.step{step}.log_psi"] > LOG_ZERO)
        forward = case.outputs[f"batch.step{step}.r"]
        grown = torch.full(forward.shape, float("-inf"), dtype=torch.float64)
        for label in (label for label in range(config["V"]) if label != config["blank"]):
            each = scorer.advance(state, torch.arange(len(rows)), torch.full((len(rows),), label))
            grown[..., label] = torch.stack([each.in_label.T, each.in_blank.T], 1)
        true = torch.arange(len(forward))[:, None] < inputs["lengths"][rows][None]
        labels = torch.arange(config["V"]) != config["blank"]
        scores(f"batch.step{step}.r", grown, true[:, None, :, None] & labels)
        state = scorer.advance(state, torch.arange(len(rows)), inputs["choices"][step].flatten())
    for name in case.outputs:
        if name.startswith("single.psi."):
            state = scorer.start(torch.tensor([0]))
            for part in filter(None, name.removeprefix("single.psi.").split("_")):
                state = scorer.advance(state, torch.tensor([0]), torch.tensor([int(part)]))
            psi = scorer.psi(state)[0]
            psi[eos] = state.complete()[0]
            scores(name, psi)
    if "single.initial_state" in case.outputs:
        first, frames = scorer.start(torch.tensor([0])), int(inputs["lengths"][0])
        scores("single.initial_state", torch.stack([first.in_label[0], first.in_blank[0]], 1)[:frames])
    if "subset.local" in case.outputs:
        start, ids = scorer.start(rows), inputs["subset_ids"]
        local = torch.full(case.outputs["subset.local"].shape, float("-inf"), dtype=torch.float64)
        local.scatter_(1, ids, scorer.psi(start, ids) - start.psi[:, None])
        local[:, eos] = start.complete() - start.psi
        scores("subset.local", local)


def lexicon_options(setting: Mapping[str, Any], where: str) -> LexiconOptions:
    """Options of fairseq's decoders by flashlight."""
    options = Options(setting, where)
    take = options.take
    found = LexiconOptions(
        beam=take("beam", 50),
        threshold=float(take("beamthreshold", 50.0)),
        lm_weight=float(take("lmweight", 2.0)),
        word_score=float(take("wordscore", -1.0)),
        silence_score=float(take("silweight", 0.0)),
        nbest=take("nbest", 1),
        unknown_score=float(take("unkweight", -math.inf)),
        symbols=take("beamsizetoken", 0) or None,
    )
    options.require("unitlm", False)
    options.finish()
    return found


def spelled_out(found: Spelled, blank: int) -> tuple[list[str], list[int], list[int]]:
    """Words, symbols without repeats and blanks, and the frames where they begin."""
    starts = [i for i, symbol in enumerate(found.path) if symbol != blank and (i == 0 or symbol != found.path[i - 1])]
    return list(found.words), [found.path[i] for i in starts], starts


def lexicon_case(case: Case, check: Check) -> None:
    """Flashlight's search through fairseq: symbols without repeats and blanks, with the frames where they begin."""
    ids = {symbol: number for number, symbol in enumerate(["<s>", "<pad>", "</s>", "<unk>", *case.description["letters"]])}
    model, lexicon = NGram.read(case.folder / "lm.arpa"), read_lexicon(case.folder / "lexicon.txt", ids)
    spellings = {word: {spelling for each, spelling in lexicon if each == word} for word, _ in lexicon}

    def fits(ours: tuple[list[str], list[int], list[int]], said: Mapping[str, Any]) -> bool:
        words, *letters = ours
        alike = len(words) == len(said["words"]) and all(
            a == b or spellings.get(a, set()) & spellings.get(b, set()) for a, b in zip(words, said["words"], strict=True)
        )
        return alike and letters == [said["tokens"], said["timesteps"]]

    emissions, blank, bound = case.inputs["emissions"], 0, case.bound("score")
    for number, setting in enumerate(case.config["options"]):
        options = lexicon_options(setting, f"case.json: config.options.{number}")
        decoder = LexiconDecoder(lexicon, model, replace(options, nbest=options.beam), blank, ids["|"])
        for row, expected in enumerate(case.description["results"][number]):
            name, found = f"opt{number}.utt{row}", decoder.decode(emissions[row])
            scores = torch.tensor([each.score for each in found[: options.nbest]])
            check.close(f"{name}.scores", scores, bound)
            ours = [spelled_out(each, blank) for each in found]
            # Hypotheses of one score come in any order there, as do words that are spelled alike and that the model does not tell apart.
            places = [
                next(
                    (place for place, each in enumerate(ours) if fits(each, said) and abs(found[place].score - said["score"]) <= bound), -1
                )
                for said in expected
            ]
            check.value(f"{name}: n best that are not ours", places.count(-1), 0.0, 0.0)
            check.equal(f"{name}.best_tokens", torch.tensor(ours[max(places[0], 0)][1]))
    for row, frames in enumerate(emissions):
        [best] = ctc_greedy(frames[None].log_softmax(-1), torch.tensor([len(frames)]))
        check.equal(f"viterbi.utt{row}", torch.tensor(best.tokens))


ADAPTERS = [
    (lambda case: "flashlight_decoder" in case.official and "letters" in case.description, lexicon_case),
    (lambda case: "table-driven decoder" in case.official and "CTC" not in case.official and "att" in case.inputs, beam_case),
    (lambda case: "exhaustive enumeration" in case.official and "prefixes" in case.outputs, enumerated_case),
    (lambda case: "CTCPrefixScore" in case.official and "choices" in case.inputs, espnet_case),
]
