"""Validation of a run on its way: losses with fixed masks, the word error rate of a recogniser, the best models.

Several processes take turns with the batches, and all of them know the result, which is that of one process.
"""

import math
import shutil
from typing import TYPE_CHECKING

import torch

from avtlm.data.batching import Batch, plan_batches
from avtlm.data.dataset import ClipDataset, collate
from avtlm.data.manifest import read_manifest
from avtlm.data.seeds import seed_for
from avtlm.recognizer import Recognizer, transcribe_all
from avtlm.text.normalize import normalize
from avtlm.training.averaging import average
from avtlm.training.meter import Meter
from avtlm.training.run_folder import save
from avtlm.training.watching import Sample

if TYPE_CHECKING:
    from avtlm.training.loop import Trainer

MOST = 700.0  # nats of which a float can take the exponential


class Validation:
    """The validation source of a run.

    Attributes:
        batches: those of this process, by their numbers among all.
        samples: some utterances as a recogniser understood them in the last validation, always the same ones.
    """

    def __init__(self, run: "Trainer", dataset: ClipDataset) -> None:
        self.run = run
        self.dataset = dataset
        self.samples: list[Sample] = []
        lengths = [dataset.frames(index) for index in range(len(dataset))]
        plans = plan_batches(lengths, run.settings.max_frames, run.settings.max_rows, torch.Generator().manual_seed(0))
        mine = range(run.processes.rank, len(plans), run.processes.count)
        self.batches: dict[int, Batch] = {
            number: collate([dataset.item(row) for row in plans[number]], dataset.source.task) for number in mine
        }

    @torch.no_grad()
    def results(self) -> dict[str, float]:
        """Losses and, of a recogniser, the word error rate, or of a language model, the perplexity of a token, ends counted."""
        run, meter = self.run, Meter()
        run.replicas.gathered(True)
        run.model.eval()
        for number, batch in self.batches.items():
            generator = torch.Generator().manual_seed(seed_for("validation", number))
            meter.add("", run.model.losses(batch.to(run.device), generator))  # type: ignore[operator]
        results = {f"valid_{name}": value for name, value in meter.merged(run.processes).means().items()}
        if isinstance(run.model, Recognizer) and run.start.vocabulary is not None:
            from avtlm.evaluation.wer import corpus_wer

            said = self._understood(run.model)
            results["valid_wer"] = corpus_wer([(normalize(each.reference), normalize(each.text)) for each in said]).rate
            self.samples = sorted(said, key=lambda each: seed_for("samples", each.id))[: run.settings.samples]
        if run.settings.task == "language_model":
            results["valid_perplexity"] = math.exp(min(results["valid_nll"], MOST))
        run.model.train()
        run.replicas.gathered(False)
        return results

    def _understood(self, model: Recognizer) -> list[Sample]:
        """What was said and what was understood, in the same order on any number of processes."""
        rows = {row.id: row.transcript or "" for row in read_manifest(self.dataset.source.manifest)}
        texts = {number: transcribe_all(model, [batch.to(self.run.device)]) for number, batch in self.batches.items()}
        gathered = {number: found for part in self.run.processes.gather(texts) for number, found in part.items()}
        return [Sample(name, rows[name], text) for number in sorted(gathered) for name, text in gathered[number].items()]

    def keep_the_best(self, results: dict[str, float]) -> None:
        """Write the model to ``best/`` if no earlier one was better, and to ``candidates/`` if it is among the best."""
        run, state = self.run, self.run.state
        measured = ("valid_wer", "valid_perplexity", "valid_masked_loss")
        quality = next((results[name] for name in measured if name in results), math.inf)
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
