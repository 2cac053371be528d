"""Clips to learn from by what teachers say about them, and clips with the names of the sounds in them (MT2KD).

The tasks of a source, and what their batches hold:

- ``distillation``: sound, and by teacher (``speech``, ``sound``, ``speaker``) the answers in the folder ``teachers`` of the source;
  ``targets.learned`` (batch, 3) says which of the three a row has. Without such a folder the model asks its own teachers; then
  ``targets.learned`` says what shall be learned. A source that names some in ``learns`` learns from these alone (``use_task_id`` of the
  official code: LibriSpeech learns speech, with ``share_asr`` speakers too, VoxCeleb speakers, AudioSet sounds).
- ``tagging``: sound, and ``targets.tags`` (batch, classes), 1 for every name in ``extra["labels"]``, a list or one name.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from avtlm.data.batching import Batch, pad
from avtlm.data.dataset import ClipDataset, Source
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import Utterance
from avtlm.data.teacher_targets import FAILED, TEACHERS, TeacherTargets

HEARD = ("distillation", "tagging")
LABELS = "labels"
log = logging.getLogger(__name__)


def labels_of(row: Utterance) -> tuple[str, ...]:
    """Names of the sounds in a clip; none where its row has none.

    Raises:
        ValueError: something else than a name or a list of names.
    """
    told = row.extra.get(LABELS, [])
    names = [told] if isinstance(told, str) else told
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"utterance {row.id!r} has the labels {told!r:.60}; give a name or a list of names under extra.")
    return tuple(names)


class HeardDataset(ClipDataset):
    """Examples of one source whose task is one of ``HEARD``.

    Args:
        source, seed, inputs, training: see ClipDataset.
        tags: names of the classes of sounds, by their numbers, for ``tagging``.

    Raises:
        ValueError: a row that cannot be used, by its id: no sound, no label or one that is no class; answers of teachers that are missing.
    """

    def __init__(
        self, source: Source, seed: int = 0, inputs: InputFormat | None = None, training: bool = True, tags: Sequence[str] = ()
    ) -> None:
        super().__init__(source, seed, inputs, None, None, training)
        self.numbers = {name: number for number, name in enumerate(tags)}
        silent = [row.id for row in self.manifest if row.audio is None]
        if silent:
            raise ValueError(f"{source.manifest}: utterance {silent[0]!r} has no audio, which {source.task} needs; leave it out.")
        self.answers: TeacherTargets | None = None
        if source.teachers is not None:
            self.answers = TeacherTargets.read(source.teachers)
            lacking = [name for name in source.learns or () if name not in self.answers.about.teachers]
            if lacking:
                raise ValueError(f"{source.teachers}: has no answers of a teacher of {lacking[0]}, which learns names; leave it out there.")
            deaf = set(self.answers.unheard(row.id for row in self.manifest))
            if len(deaf) == len(self.manifest):
                raise ValueError(
                    f"{source.teachers}: has answers for no utterance of {source.manifest}; run avtlm teach over that manifest."
                )
            if deaf:
                log.warning("%s: %d clips about which no teacher said anything are left out (see %s)", source.manifest, len(deaf), FAILED)
            self.manifest = self.manifest.filter(lambda row: row.id not in deaf)
            self._waves, self._crops = self._memories()
        if source.task == "tagging":
            for row in self.manifest:
                self._tags(row)

    def batch(self, rows: Sequence[int], epoch: int = 0, progress: float = 1.0) -> Batch:
        """Several examples, with what is known about them."""
        batch = super().batch(rows, epoch, progress)
        utterances = [self.manifest[row] for row in rows]
        if self.source.task == "tagging":
            return replace(batch, targets={"tags": torch.stack([self._tags(row) for row in utterances])})
        wanted = self.source.learns or TEACHERS
        if self.answers is None:
            learned = torch.tensor([[name in wanted for name in TEACHERS]] * len(rows))
            return replace(batch, targets={"learned": learned})
        taught = {name: each for name, each in self.answers.about.teachers.items() if name in wanted}
        shapes = {name: answer_shape(each.width, each.rate) for name, each in taught.items()}
        return with_answers(batch, [self.answers.of(row.id, wanted) for row in utterances], shapes)

    def _tags(self, row: Utterance) -> Tensor:
        """1 for every class in a clip, float (classes,)."""
        try:
            names = labels_of(row)
        except ValueError as error:
            raise ValueError(f"{self.source.manifest}: {error}") from error
        unknown = [name for name in names if name not in self.numbers]
        if unknown or not names:
            what = f"has the label {unknown[0]!r}, which is none of the training's" if unknown else f"has no {LABELS} under extra"
            raise ValueError(f"{self.source.manifest}: utterance {row.id!r} {what}; leave it out.")
        found = torch.zeros(len(self.numbers))
        found[[self.numbers[name] for name in names]] = 1.0
        return found


def answer_shape(width: int, rate: float) -> tuple[int, ...]:
    """Of what a teacher says, 0 for frames."""
    return (0, width) if rate else (width,)


def with_answers(batch: Batch, answers: Sequence[dict[str, Tensor]], shapes: dict[str, tuple[int, ...]]) -> Batch:
    """A batch with the answers of teachers, by row; what a row lacks is zeros.

    Args:
        shapes: of an answer by teacher, see answer_shape.
    """
    targets: dict[str, Tensor] = {"learned": torch.tensor([[name in row for name in TEACHERS] for row in answers])}
    lengths: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        rows = [row.get(name, torch.zeros(shape)) for row in answers]
        if len(shape) == 2:
            targets[name], lengths[name] = pad(rows)
        else:
            targets[name] = torch.stack(rows)
    return replace(batch, targets=targets, target_lengths=lengths)
