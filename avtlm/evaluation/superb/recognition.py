"""Tasks that write down what is said, by CTC: phonemes (PR), words (ASR), words of other languages and settings (OOD-ASR), slots (SF).

PR: Linear(width, 256), Linear(256, phonemes), frame by frame. The others: Linear(width, 1024), two bidirectional LSTM layers of 1024
(dropout 0.2 behind each; in OOD-ASR a linear map and tanh behind each), Linear(symbols), with SpecAugment on the features in training.
Source: s3prl, downstream/ctc and downstream/asr. SpecAugment is that of the house (avtlm.frontends.spec_augment), which hides values
behind the clip's mean. CTC's losses are means over the symbols of each clip, then over clips.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from avtlm.data.batching import pad
from avtlm.decoding.greedy import ctc_greedy
from avtlm.decoding.lexicon import LexiconOptions
from avtlm.decoding.word_search import WordSearch
from avtlm.evaluation.slot_filling import slot_type_f1, slot_value_cer
from avtlm.evaluation.superb.data import Clip, Corpus, CorpusError
from avtlm.evaluation.superb.task import Heard, Metric, Task, TaskConfig
from avtlm.evaluation.wer import corpus_cer, corpus_wer
from avtlm.frontends.spec_augment import SpecAugmentConfig, spec_augment
from avtlm.objectives.loss import Loss
from avtlm.text.vocabulary import BLANK, SPACE, Vocabulary

PER, WER, WITH_MODEL = Metric("PER", higher=False), Metric("WER", higher=False), "WER with language model"
F1, VALUE_CER = Metric("F1"), Metric("CER", higher=False)
MARKS = ("B-", "E-")


@dataclass(frozen=True)
class PhonemeConfig(TaskConfig):
    """Attributes:
    projection: width between the two linear maps.
    """

    projection: int = 256


@dataclass(frozen=True)
class RecognitionConfig(TaskConfig):
    """Attributes:
    projection: width in front of the LSTM layers.
    hidden: of each direction of an LSTM layer.
    layers: LSTM layers.
    dropout: behind each of them.
    tanh: a linear map and tanh behind each of them.
    spec_augment: what training hides of the features; ``prob=0`` hides nothing.
    lexicon, language_model: files for a second decoding of test: lines ``word <tab> letters |``, and an ARPA file over these words.
    beam, threshold, lm_weight, word_score: of that decoding, see avtlm.decoding.lexicon.
    """

    projection: int = 1024
    hidden: int = 1024
    layers: int = 2
    dropout: float = 0.2
    tanh: bool = False
    spec_augment: SpecAugmentConfig = field(
        default_factory=lambda: SpecAugmentConfig(
            prob=1.0, time_warp=5, frequency_masks=4, frequency_width=50, time_masks=2, time_width=40, most_time=1.0
        )
    )
    lexicon: str | None = None
    language_model: str | None = None
    beam: int = 5
    threshold: float = 25.0
    lm_weight: float = 2.0
    word_score: float = -1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout: {self.dropout}; give a probability below 1.")
        if self.language_model is not None and self.lexicon is None:
            raise ValueError(f"language_model: {self.language_model} needs the letters of its words; set lexicon as well.")


class PhonemeHead(nn.Module):
    """Two linear maps."""

    def __init__(self, width: int, projection: int, symbols: int) -> None:
        super().__init__()
        self.projection, self.output = nn.Linear(width, projection), nn.Linear(projection, symbols)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, width) -> logits (batch, frames, symbols)."""
        out: Tensor = self.output(self.projection(features))
        return out


class RecurrentHead(nn.Module):
    """Projection, bidirectional LSTM layers, linear map. Padding takes no part."""

    def __init__(self, width: int, symbols: int, config: RecognitionConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(width, config.projection)
        sizes = [config.projection] + [2 * config.hidden] * config.layers
        self.layers = nn.ModuleList(nn.LSTM(size, config.hidden, batch_first=True, bidirectional=True) for size in sizes[:-1])
        self.maps = nn.ModuleList(nn.Linear(sizes[-1], sizes[-1]) for _ in range(config.layers)) if config.tanh else None
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(sizes[-1], symbols)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, width) of the given lengths, at least 1 -> logits (batch, frames, symbols)."""
        x = self.projection(features)
        for number, layer in enumerate(self.layers):
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=features.shape[1])
            x = self.dropout(x)
            if self.maps is not None:
                x = torch.tanh(self.maps[number](x))
        out: Tensor = self.output(x)
        return out


def mean_ctc_loss(logits: Tensor, lengths: Tensor, targets: list[Tensor]) -> Tensor:
    """-log p of each clip by its number of symbols, (batch,); a target that does not fit into its frames counts as 0."""
    padded, counts = pad(targets)
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    each = F.ctc_loss(log_probs, padded.to(logits.device), lengths, counts.to(logits.device), BLANK, reduction="none", zero_infinity=True)
    return each / counts.to(logits.device).clamp(min=1)


class PhonemeRecognition(Task[PhonemeConfig]):
    """PR: ``phones`` of each clip, of which training has all there are."""

    metrics: ClassVar[tuple[Metric, ...]] = (PER,)

    def __init__(self, corpus: Corpus, config: PhonemeConfig) -> None:
        super().__init__(corpus, config)
        self.vocabulary = Vocabulary.tokens(self.spelled(clip) for clip in self.clips("train"))

    def spelled(self, clip: Clip) -> str:
        """Phonemes of a clip with spaces between them."""
        return " ".join(clip.names("phones"))

    def head(self, width: int, frame_rate: float) -> nn.Module:
        return PhonemeHead(width, self.config.projection, len(self.vocabulary))

    def loss(self, head: nn.Module, heard: Heard, generator: torch.Generator) -> Loss:
        targets = [torch.tensor(self.vocabulary.encode(self.spelled(clip)), dtype=torch.long) for clip in heard.clips]
        losses = mean_ctc_loss(head(heard.features, heard.lengths), heard.lengths, targets)
        return Loss(losses.sum(), torch.tensor(len(losses), device=losses.device))

    def evaluate(self, head: nn.Module, batches: Iterable[Heard], split: str) -> dict[str, float]:
        pairs = []
        for heard in batches:
            log_probs = head(heard.features, heard.lengths).float().log_softmax(-1)
            for clip, found in zip(heard.clips, ctc_greedy(log_probs, heard.lengths, BLANK), strict=True):
                pairs.append((self.spelled(clip), self.vocabulary.decode(found.tokens)))
        return {PER.name: corpus_wer(pairs, resamples=1).percent}


class SpeechRecognition(Task[RecognitionConfig]):
    """ASR: letters of English texts, ``|`` behind every word."""

    metrics: ClassVar[tuple[Metric, ...]] = (WER,)

    def __init__(self, corpus: Corpus, config: RecognitionConfig) -> None:
        super().__init__(corpus, config)
        self.vocabulary = self.make_vocabulary()
        self.search = self._open_search()
        for clip in self.clips("train"):
            unknown = self.vocabulary.unknown_report([self.spelled(clip)]).symbols
            if unknown:
                raise CorpusError(f"{clip.place}: {clip.id} has {next(iter(unknown))!r} in its text; {self.spelling}.")

    spelling: ClassVar[str] = "write texts with the letters A to Z and the apostrophe alone"

    def make_vocabulary(self) -> Vocabulary:
        return Vocabulary.letters()

    def spelled(self, clip: Clip) -> str:
        """The text of a clip as the vocabulary takes it."""
        return clip.text("text").upper()

    def written(self, tokens: Iterable[int]) -> str:
        """The text of symbols."""
        return self.vocabulary.decode(tokens)

    def head(self, width: int, frame_rate: float) -> nn.Module:
        return RecurrentHead(width, len(self.vocabulary), self.config)

    def loss(self, head: nn.Module, heard: Heard, generator: torch.Generator) -> Loss:
        features = spec_augment(heard.features, heard.lengths, self.config.spec_augment, generator)
        targets = [torch.tensor(self.vocabulary.encode(self.spelled(clip)), dtype=torch.long) for clip in heard.clips]
        losses = mean_ctc_loss(head(features, heard.lengths), heard.lengths, targets)
        return Loss(losses.sum(), torch.tensor(len(losses), device=losses.device))

    def _open_search(self) -> WordSearch | None:
        """The second decoding, if one is configured; opened first, so that a wrong file is not found out after the training."""
        config = self.config
        if config.lexicon is None:
            return None
        model = None if config.language_model is None else Path(config.language_model)
        options = LexiconOptions(config.beam, config.threshold, config.lm_weight, config.word_score)
        return WordSearch.open(Path(config.lexicon), model, options, self.vocabulary, blank=BLANK)

    def evaluate(self, head: nn.Module, batches: Iterable[Heard], split: str) -> dict[str, float]:
        pairs, searched = [], []
        search = self.search if split == "test" else None
        for heard in batches:
            log_probs = head(heard.features, heard.lengths).float().log_softmax(-1)
            for clip, found in zip(heard.clips, ctc_greedy(log_probs, heard.lengths, BLANK), strict=True):
                pairs.append((self.reference(clip), self.written(found.tokens)))
            if search is not None:
                for clip, nbest in zip(heard.clips, search(log_probs, heard.lengths), strict=True):
                    searched.append((self.reference(clip), self.written(nbest[0].tokens)))
        scores = self.score(pairs)
        return {**scores, WITH_MODEL: self.score(searched)[self.metrics[0].name]} if searched else scores

    def reference(self, clip: Clip) -> str:
        """What a hypothesis is compared with."""
        return self.spelled(clip)

    def score(self, pairs: list[tuple[str, str]]) -> dict[str, float]:
        """Metrics of references and hypotheses."""
        return {WER.name: corpus_wer(pairs, resamples=1).percent}


class OutOfDomainRecognition(SpeechRecognition):
    """OOD-ASR: the characters of the corpus. ``"metric": "cer"`` in task.json counts characters without spaces (Mandarin); the table takes
    either for the rate of its set, of which it gives the mean."""

    spelling = "it is not to be read"

    def make_vocabulary(self) -> Vocabulary:
        return Vocabulary.characters(self.spelled(clip) for clip in self.clips("train"))

    def spelled(self, clip: Clip) -> str:
        return clip.text("text")

    def score(self, pairs: list[tuple[str, str]]) -> dict[str, float]:
        if self.corpus.about.get("metric") == "cer":
            return {WER.name: corpus_cer(pairs, spaces=False, resamples=1).percent}
        return super().score(pairs)


class SlotFilling(SpeechRecognition):
    """SF: characters and marks of slots, each mark one symbol."""

    metrics: ClassVar[tuple[Metric, ...]] = (F1, VALUE_CER)
    spelling = "it is not to be read"

    def make_vocabulary(self) -> Vocabulary:
        return Vocabulary.tokens(self.spelled(clip) for clip in self.clips("train"))

    def spelled(self, clip: Clip) -> str:
        return spell_slots(clip.text("text"))

    def reference(self, clip: Clip) -> str:
        return " ".join(clip.text("text").split())

    def written(self, tokens: Iterable[int]) -> str:
        return read_slots(super().written(tokens))

    def score(self, pairs: list[tuple[str, str]]) -> dict[str, float]:
        return {F1.name: 100 * slot_type_f1(pairs), VALUE_CER.name: slot_value_cer(pairs).percent}


def spell_slots(text: str) -> str:
    """``play B-artist the band E-artist`` as symbols with spaces between them: letters, marks, and ``|`` between words, none of
    them behind B-type or before E-type."""
    symbols: list[str] = []
    for word in text.split():
        if symbols and not symbols[-1].startswith("B-") and not word.startswith("E-"):
            symbols.append(SPACE)
        symbols.extend([word] if word.startswith(MARKS) else word)
    return " ".join(symbols)


def read_slots(symbols: str) -> str:
    """The text of such symbols."""
    spaced = (f" {symbol} " if symbol.startswith(MARKS) and len(symbol) > 2 else symbol for symbol in symbols.split())
    return " ".join("".join(spaced).replace(SPACE, " ").split())
