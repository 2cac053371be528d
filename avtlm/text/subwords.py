"""Word pieces by SentencePiece, with the ids of the special symbols that AV-HuBERT and VATLM use, which are also fairseq's.

``<s>`` = 0, ``<pad>`` = 1, ``</s>`` = 2, ``<unk>`` = 3; unigram model, character coverage 1. The trained model lies in the model folder as
``subwords.model`` (SentencePiece's own format), beside ``vocabulary.json``, which names it.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from avtlm.files import atomic_path, write_text
from avtlm.text.vocabulary import BOS, EOS, FILE, PAD, SPECIALS, UNKNOWN, UnknownReport, VocabularyError, WordSpan, read_description

MODEL = "subwords.model"
WORD_START = "\u2581"  # SentencePiece marks the start of a word by this sign


class Subwords:
    """A SentencePiece model as a vocabulary.

    Args:
        model: the serialised model, as SentencePiece writes it.

    Raises:
        VocabularyError: the bytes are no such model, or its special symbols have other ids.
    """

    def __init__(self, model: bytes) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise VocabularyError(f"The word pieces are not a SentencePiece model ({error}).") from error
        self._model = model
        p = self._processor
        if (p.bos_id(), p.pad_id(), p.eos_id(), p.unk_id()) != (BOS, PAD, EOS, UNKNOWN):
            raise VocabularyError(
                f"The word pieces have <s> {p.bos_id()}, <pad> {p.pad_id()}, </s> {p.eos_id()}, <unk> {p.unk_id()}; "
                f"train them with <s> {BOS}, <pad> {PAD}, </s> {EOS}, <unk> {UNKNOWN}."
            )

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 1000, coverage: float = 1.0) -> "Subwords":
        """A unigram model with ``size`` pieces, the four special ones among them. The same texts give the same model.

        Args:
            texts: transcripts, one sentence each.
            size: number of pieces.
            coverage: share of the characters of ``texts`` that the pieces must spell.

        Raises:
            VocabularyError: ``texts`` hold no words, or too few for that many pieces.
        """
        sentences = [line for line in (" ".join(text.split()) for text in texts) if line]
        if not sentences:
            raise VocabularyError("Word pieces cannot be trained: the texts hold no words.")
        written = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=written,
                model_type="unigram",
                vocab_size=size,
                character_coverage=coverage,
                bos_id=BOS,
                pad_id=PAD,
                eos_id=EOS,
                unk_id=UNKNOWN,
                num_threads=1,  # so that sums, and with them the pieces, never depend on the machine
                max_sentence_length=65536,
                minloglevel=2,
            )
        except RuntimeError as error:
            limit = re.search(r"value <= (\d+)", str(error))
            hint = f"at most {limit.group(1)} pieces fit" if limit else str(error)
            raise VocabularyError(f"{size} word pieces cannot be trained from {len(sentences)} sentences: {hint}.") from error
        return cls(written.getvalue())

    @property
    def serialised(self) -> bytes:
        """The model as SentencePiece writes it."""
        return self._model

    @property
    def symbols(self) -> list[str]:
        return [self._processor.id_to_piece(index) for index in range(len(self))]

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subwords) and self._model == other._model

    def __hash__(self) -> int:
        return hash(self._model)

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces of ``text``, without start or end symbols."""
        return list(self._processor.encode(text))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; special symbols, ``<unk>`` among them, are left out."""
        return str(self._processor.decode([int(index) for index in ids if index > UNKNOWN]))

    def words(self, ids: Sequence[int]) -> list[WordSpan]:
        """The words of ``ids`` with the positions of their pieces; special symbols belong to no word but do not divide one."""
        groups: list[tuple[str, list[int]]] = []
        for place, index in enumerate(ids):
            if index <= UNKNOWN:
                continue
            piece = self._processor.id_to_piece(int(index))
            if piece.startswith(WORD_START) or not groups:
                groups.append(("", []))
            text, places = groups[-1]
            groups[-1] = (text + piece.replace(WORD_START, ""), [*places, place])
        return [WordSpan(text, places[0], places[-1] + 1) for text, places in groups if text]

    def unknown_report(self, texts: Iterable[str]) -> UnknownReport:
        """How many pieces of ``texts`` are unknown. Neighbouring unknown characters come as one piece."""
        total, unknown = 0, Counter[str]()
        for text in texts:
            ids, pieces = self._processor.encode(text), self._processor.encode(text, out_type=str)
            total += len(ids)
            unknown.update(piece.replace(WORD_START, "") for index, piece in zip(ids, pieces) if index == UNKNOWN)
        return UnknownReport(sum(unknown.values()), total, dict(unknown))

    def save(self, folder: str | Path) -> None:
        """Write ``subwords.model`` and ``vocabulary.json`` into a model folder."""
        with atomic_path(Path(folder) / MODEL) as temporary:
            temporary.write_bytes(self._model)
        write_text(Path(folder) / FILE, json.dumps({"kind": "subwords", "model": MODEL, "size": len(self)}) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "Subwords":
        """Read the word pieces of a model folder.

        Raises:
            VocabularyError: a file is missing, damaged, or of another kind.
        """
        content = read_description(folder)
        if content.get("kind") != "subwords" or not isinstance(content.get("model"), str):
            raise VocabularyError(f"{Path(folder) / FILE} does not name a SentencePiece model; read it with load_vocabulary.")
        return cls.load_model(Path(folder) / str(content["model"]))

    @classmethod
    def load_model(cls, path: str | Path) -> "Subwords":
        """Read a SentencePiece ``.model`` file. Raises VocabularyError if it is missing or damaged."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise VocabularyError(f"The word pieces {path} cannot be read: {error}") from error

    def save_dict(self, path: str | Path) -> None:
        """Write fairseq's ``dict.txt`` (AV-HuBERT's ``dict.wrd.txt``): a piece and a count of 1 in every line, no special pieces."""
        write_text(path, "".join(f"{piece} 1\n" for piece in self.symbols[len(SPECIALS) :]))
