"""How transcripts are searched for: the settings that travel with a model (``decoding.yaml``) and that ``--decoding`` changes.

What contradicts itself is refused, and so is a request that the chosen search cannot fulfil. Mere weights and bounds of another search are
left alone: a folder keeps them for the day on which its method is changed.
"""

from dataclasses import dataclass, field
from typing import Literal

Method = Literal["ctc_greedy", "ctc_beam", "ctc_lexicon", "attention", "joint", "transducer"]
TOKEN_BY_TOKEN = ("attention", "joint")


@dataclass(frozen=True)
class FusionConfig:
    """A language model that has a say in every token of an attention or joint search (shallow fusion).

    Attributes:
        language_model: model folder of a language model (avtlm.systems.language_model), or an ARPA file, plain or ``.gz``, whose words are
            the recogniser's tokens. A path in the model's folder, or any other.
        weight: its log-probabilities (natural) are added with this weight; published are 0.3 to 0.7.
        score_end: it scores the end of the sentence too; without that, only the recogniser decides on it.
    """

    language_model: str
    weight: float = 0.3
    score_end: bool = True


@dataclass(frozen=True)
class RescoringConfig:
    """A language model that ranks finished hypotheses anew: by their score + weight * ln P(text) + word_bonus * words.

    Attributes:
        language_model: model folder of a language model over the recogniser's tokens, or an ARPA file of n-grams over words. A path in the
            model's folder, or any other.
    """

    language_model: str
    weight: float = 0.3
    word_bonus: float = 0.0


@dataclass(frozen=True)
class DecodingConfig:
    """How transcripts are searched for; docs/decoding.md has the table of searches.

    Attributes:
        method: best path of CTC; CTC prefixes; CTC over the words of a lexicon; attention decoder; attention and CTC in one pass (with a
            ``ctc_weight`` of 1 CTC alone, token by token); transducer (with a beam of 1 its best symbol at every step).
        nbest: hypotheses given out, best first, with the parts of their scores; at most ``beam``.
        words: find start, end and confidence of every word: by CTC where there is a CTC head, else by where the decoder attends to.
        length_penalty: of attention and joint searches: scores are divided by length ** penalty; null is each search's own, 1 (the mean)
            and, for ``joint`` by the rules of ESPnet, 0 (sums).
        ctc_weight: CTC's share: for ``joint`` in every token; for ``attention`` in the ranking of the hypotheses that the decoder ends with
            (avtlm.decoding.rescoring); 0 leaves its own ranking.
        convention: of ``joint``: whose rules (avtlm.decoding.joint, avtlm.decoding.beam).
        length_bonus: of ``joint`` by the rules of ESPnet: for every token.
        max_length_ratio, max_length_extra: attention and joint searches write at most int(ratio * frames + extra) tokens.
        official_length_limit: take for the frames what AV-HuBERT's and VATLM's generators take: the width of the audio features (104)
            where there is audio, and the longest clip of the batch for video alone.
        min_length: attention and joint searches write at least so many tokens; null is each search's own, 1 and 0.
        no_repeat_ngram: attention and joint searches write no sequence of so many tokens twice; 0 has no such rule.
        end_threshold: attention and joint searches may end only where the decoder's log-probability of the end is above this many times
            that of its best other token (1.5 in arXiv 1904.02619); null has no such rule.
        symbols_per_frame: ``transducer`` with a beam of 1 writes at most so many symbols in a frame, and then goes on to the next; released
            models of icefall write 1. A larger beam has no such bound.
        hot_words: bonus (natural log) for every place of the text where a word or phrase stands; not for ``ctc_greedy``
            and ``transducer``.
        fusion: language model in every step of attention and joint searches.
        rescoring: language model for finished hypotheses, of any search but ``ctc_greedy``.
        skip_blanks: ``ctc_beam`` and ``ctc_lexicon`` pass over frames that are blanks with more than this probability, but for the first
            of every run of them; null looks at all.
        lexicon: for ``ctc_lexicon``: file with a word, a tab and its letters, then ``|``, in every line. A path of a file in the model's
            folder, or any other.
        language_model: n-grams over these words in ARPA format; without them any word may follow any other. As ``lexicon``.
        alignments: of ``ctc_lexicon``: a text counts by its ``best`` alignment, as in flashlight, or by all of them, ``summed``.
        lm_weight, word_score, silence_score, threshold: of ``ctc_lexicon``; see avtlm.decoding.lexicon. The first is on the scale of
            log10. Published for 4-grams of LibriSpeech: beam 1500, lm_weight 2, word_score -1.
    """

    method: Method = "ctc_greedy"
    beam: int = 10
    nbest: int = 1
    words: bool = True
    length_penalty: float | None = None
    ctc_weight: float = 0.0
    convention: Literal["espnet", "speecht5", "speechut"] = "espnet"
    length_bonus: float = 0.0
    max_length_ratio: float = 1.0
    max_length_extra: float = 0.0
    official_length_limit: bool = False
    min_length: int | None = None
    no_repeat_ngram: int = 0
    end_threshold: float | None = None
    symbols_per_frame: int = 10
    hot_words: dict[str, float] = field(default_factory=dict)
    fusion: FusionConfig | None = None
    rescoring: RescoringConfig | None = None
    skip_blanks: float | None = None
    lexicon: str | None = None
    language_model: str | None = None
    alignments: Literal["best", "summed"] = "best"
    lm_weight: float = 2.0
    word_score: float = -1.0
    silence_score: float = 0.0
    threshold: float = 50.0

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"beam: {self.beam}; give at least 1.")
        if not 1 <= self.nbest <= (1 if self.method == "ctc_greedy" else self.beam):
            most = "1, as ctc_greedy finds one text" if self.method == "ctc_greedy" else f"the beam of {self.beam}"
            raise ValueError(f"nbest: {self.nbest}; give at least 1, and at most {most}.")
        self._check_words()
        self._check_tokens()
        if not 0.0 <= self.ctc_weight <= 1.0 or (self.ctc_weight and self.method not in TOKEN_BY_TOKEN):
            raise ValueError(
                f"ctc_weight: {self.ctc_weight} for {self.method}; give a share from 0 to 1, above 0 for attention and joint only."
            )
        if self.method == "joint" and self.ctc_weight == 0:
            raise ValueError("ctc_weight: 0 for joint leaves CTC out; give a share above 0, such as 0.3, or choose attention.")
        for name, model in (("fusion", self.fusion), ("rescoring", self.rescoring)):
            if model is not None and not model.weight > 0:
                raise ValueError(f"{name}.weight: {model.weight}; give a number above 0, or leave the language model out.")
        if self.method == "ctc_greedy" and (self.hot_words or self.rescoring is not None):
            name = "hot_words" if self.hot_words else "rescoring"
            raise ValueError(f"{name}: ctc_greedy has one hypothesis and nothing to choose from; choose ctc_beam or another search.")
        if self.hot_words and self.method == "transducer":
            raise ValueError("hot_words: the search of transducers has no place for them; choose ctc_beam, attention or joint.")
        if self.rescoring is not None and self.beam < 2:
            raise ValueError("rescoring: a beam of 1 leaves one hypothesis and nothing to rank; give a larger beam.")

    def _check_words(self) -> None:
        """The settings of searches over frames."""
        if (self.method == "ctc_lexicon") != (self.lexicon is not None):
            raise ValueError(f"lexicon: {self.lexicon or 'none'} for {self.method}; a lexicon and the method ctc_lexicon belong together.")
        if self.language_model is not None and self.lexicon is None:
            raise ValueError(
                f"language_model: {self.language_model} for {self.method}; only ctc_lexicon takes one; set lexicon as well, or give the "
                "model as fusion.language_model or rescoring.language_model."
            )
        if self.threshold <= 0:
            raise ValueError(f"threshold: {self.threshold}; give a number above 0.")
        if self.alignments == "summed" and (self.method != "ctc_lexicon" or self.silence_score):
            raise ValueError("alignments: summed is for ctc_lexicon without a silence_score; choose best, or set that to 0.")
        if self.skip_blanks is not None and (self.method not in ("ctc_beam", "ctc_lexicon") or not 0 < self.skip_blanks < 1):
            raise ValueError(
                f"skip_blanks: {self.skip_blanks} for {self.method}; give a probability such as 0.99, for ctc_beam and ctc_lexicon only."
            )

    def _check_tokens(self) -> None:
        """The settings of searches token by token."""
        only = "for attention and joint only; leave it out, or choose one of them (joint with ctc_weight=1 needs no decoder)"
        given = {
            "fusion": self.fusion is not None,
            "no_repeat_ngram": self.no_repeat_ngram != 0,
            "min_length": self.min_length is not None,
            "end_threshold": self.end_threshold is not None,
            "length_bonus": self.length_bonus != 0,
        }
        wrong = next((name for name, there in given.items() if there and self.method not in TOKEN_BY_TOKEN), None)
        if wrong is not None:
            raise ValueError(f"{wrong}: is {only}.")
        if self.symbols_per_frame < 1:
            raise ValueError(f"symbols_per_frame: {self.symbols_per_frame}; give at least 1.")
        if self.no_repeat_ngram < 0 or (self.min_length is not None and self.min_length < 0) or min(self._limits) < 0:
            raise ValueError("min_length, no_repeat_ngram, max_length_ratio and max_length_extra cannot be negative.")
        espnet = self.method == "joint" and self.convention == "espnet"
        if self.length_bonus and not espnet:
            raise ValueError(f"length_bonus: {self.length_bonus}; only joint by the rules of espnet has one; set 0.")
        if self.convention != "espnet" and self.method != "joint":
            raise ValueError(f"convention: {self.convention} for {self.method}; only joint has a choice of rules.")
        if self.end_threshold is not None and (self.end_threshold <= 0 or (self.ctc_weight == 1 and self.method == "joint")):
            raise ValueError(f"end_threshold: {self.end_threshold}; give a factor above 0, such as 1.5, and a ctc_weight below 1.")

    @property
    def _limits(self) -> tuple[float, float]:
        return self.max_length_ratio, self.max_length_extra
