"""Validation of a run on its way: losses with fixed masks, the word error rate of a recogniser, the best models.

Several processes take turns with the batches, and all of them know the result, which is that of one process.
"""

import math
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from avtlm.data.batching import Batch, plan_batches
from avtlm.data.dataset import ClipDataset, written
from avtlm.data.seeds import seed_for
from avtlm.errors import MissingExtra
from avtlm.evaluation import wer
from avtlm.objectives.loss import Loss
from avtlm.recognizer import Recognizer, transcribe_all
from avtlm.text.normalize import normalize
from avtlm.training.averaging import average
from avtlm.training.meter import Meter
from avtlm.training.run_folder import save
from avtlm.training.watching import Sample
from avtlm.transcriber import Transcriber
from avtlm.whole_model import WholeModel

if TYPE_CHECKING:
    from avtlm.training.loop import Trainer

MOST = 700.0  # nats of which a float can take the exponential
# What says which model is best, the most telling first, and what it is multiplied by where more is better.
MEASURED = {
    "valid_wer": 1.0,
    "valid_perplexity": 1.0,
    "valid_speaker_accuracy": -1.0,
    "valid_unit_accuracy": -1.0,
    "valid_masked_loss": 1.0,
    "valid_loss": 1.0,
}


def _writer(run: "Trainer") -> Transcriber | None:
    """The model of a run as one that writes down speech, if it is one."""
    if isinstance(run.model, Recognizer):
        return run.model
    if run.settings.task != "transcription" or run.start.vocabulary is None:
        return None
    return WholeModel(run.model, run.start.vocabulary, run.start.decoding)


class Validation:
    """The validation source of a run.

    Attributes:
        batches: those of this process, by their numbers among all.
        samples: some utterances as they were understood in the last validation, always the same ones.
        writer: what writes down speech, if the model does.
        latest: the step of the last validation, and what it has found; None before the first one of this process.
    """

    def __init__(self, run: "Trainer", dataset: ClipDataset) -> None:
        self.run = run
        self.dataset = dataset
        self.samples: list[Sample] = []
        self.latest: tuple[int, dict[str, float]] | None = None
        self.writer = _writer(run) if dataset.source.task == "recognition" else None
        if self.writer is not None and dataset.source.written == "transcript":
            wer.check()  # now, and not after hours of training
        lengths = [dataset.frames(index) for index in range(len(dataset))]
        bound = dataset.source.max_frames or run.settings.max_frames
        plans = plan_batches(lengths, bound, run.settings.max_rows, torch.Generator().manual_seed(0))
        mine = range(run.processes.rank, len(plans), run.processes.count)
        self.batches: dict[int, Batch] = {number: dataset.batch(plans[number]) for number in mine}

    @torch.no_grad()
    def results(self) -> dict[str, float]:
        """Losses and, of a model that writes down speech, the word error rate, or BLEU where it translates and sacreBLEU is installed; of a
        language model, the perplexity of a token with ends.

        Where nothing else says which model is best, ``valid_loss`` does: the sum of all losses over all that they count.
        """
        run, meter = self.run, Meter()
        run.replicas.gathered(True)
        run.model.eval()
        for number, batch in self.batches.items():
            generator = torch.Generator().manual_seed(seed_for("validation", number))
            torch.manual_seed(seed_for("validation dropout", number))  # some dropout never ends
            losses: dict[str, Loss] = run.model.losses(batch.to(run.device), generator)  # type: ignore[operator]
            total = torch.stack([loss.value for loss in losses.values()]).sum()
            count = torch.stack([loss.count for loss in losses.values()]).sum()
            meter.add("", {**losses, "": Loss(total, count, {"loss": (total, count)})})
        results = {f"valid_{name}": value for name, value in meter.merged(run.processes).means().items()}
        if self.writer is not None:
            said = self._understood(self.writer)
            results |= _word_errors(said) if self.dataset.source.written == "transcript" else _bleu(said)
            self.samples = sorted(said, key=lambda each: seed_for("samples", each.id))[: run.settings.samples]
        if run.settings.task == "language_model":
            results["valid_perplexity"] = math.exp(min(results["valid_nll"], MOST))
        if any(name in results for name in MEASURED if name != "valid_loss"):
            results.pop("valid_loss", None)
        run.model.train()
        run.replicas.gathered(False)
        self.latest = run.state.step, results
        return results

    def _understood(self, model: Transcriber) -> list[Sample]:
        """What was said and what was understood, in the same order on any number of processes."""
        rows = {row.id: written(row, self.dataset.source.written) or "" for row in self.dataset.manifest}
        texts = {number: transcribe_all(model, [batch.to(self.run.device)]) for number, batch in self.batches.items()}
        gathered = {number: found for part in self.run.processes.gather(texts) for number, found in part.items()}
        return [Sample(name, rows[name], text) for number in sorted(gathered) for name, text in gathered[number].items()]

    def keep_the_best(self, results: dict[str, float]) -> None:
        """Write the model to ``best/`` if no earlier one was better, and to ``candidates/`` if it is among the best."""
        run, state = self.run, self.run.state
        quality = next((sign * results[name] for name, sign in MEASURED.items() if name in results), math.inf)
        if state.best is None or quality < state.best:
            state.best = quality
            save(run, run.folder / "best", resumable=False)
        if not run.settings.average:
            return
        candidates, folder = state.candidates, run.folder / "candidates"
        candidates[state.step] = quality
        ranked = sorted(candidates, key=lambda step: (candidates[step], step))
        if state.step in ranked[: run.settings.average]:
            save(run, folder / f"step{state.step}", resumable=False)
        for step in ranked[run.settings.average :]:
            del candidates[step]
            if run.processes.first:
                shutil.rmtree(folder / f"step{step}", ignore_errors=True)
        if state.step == run.settings.steps and len(candidates) > 1 and run.processes.first:
            average([folder / f"step{step}" for step in sorted(candidates)], run.folder / "average")


def _word_errors(said: Sequence[Sample]) -> dict[str, float]:
    return {"valid_wer": wer.corpus_wer([(normalize(each.reference), normalize(each.text)) for each in said]).rate}


def _bleu(said: Sequence[Sample]) -> dict[str, float]:
    """Nothing without sacreBLEU, which no training is to wait for."""
    from avtlm.evaluation.bleu import corpus_bleu

    try:
        return {"valid_bleu": corpus_bleu([each.text for each in said], [[each.reference for each in said]]).bleu}
    except MissingExtra:
        return {}
