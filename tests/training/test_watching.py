"""A run is watched the same way everywhere: what stands in log.jsonl stands in TensorBoard and Weights & Biases."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avtlm.errors import MissingExtra
from avtlm.training import loop, watching
from avtlm.training.loop import Trainer
from avtlm.training.watching import Journal, Sample
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import pretraining, recognition, run

SAMPLES = [Sample("u1", "bin | blue", "bin blue"), Sample("u2", "soon", "")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / watching.FOLDER))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make a package look as if it were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    monkeypatch.setitem(sys.modules, package, None)


# The log --------------------------------------------------------------------------------------------------------------------------------


def test_a_run_logs_parts_rates_and_gradient_norms(corpus: MadeCorpus, tmp_path: Path) -> None:
    run(pretraining(corpus, tmp_path / "run", steps=6, log_every=3))
    found = lines(tmp_path / "run")
    assert [line["step"] for line in found] == [3, 4, 6]
    for line in found:
        parts = {name: value for name, value in line.items() if name.startswith("part/")}
        assert set(parts) == {"part/masked_prediction", "part/feature_penalty"}
        assert sum(parts.values()) == pytest.approx(line["loss"], rel=1e-5)
        assert line["gradient_norm"] > 0
        assert line["utterances_per_second"] > 0
        assert 0 < line["audio_seconds_per_second"] < line["frames_per_second"]
        assert 0 < line["device_utilisation"] < 1.5  # the peak is measured, for an instant


def test_utilisation_is_operations_over_time_and_peak(corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = pretraining(corpus, tmp_path / "run", steps=1, log_every=1)
    found = []
    for peak in (1e9, 4e9):
        monkeypatch.setattr(loop, "peak_rate", lambda device, precision, peak=peak: SimpleNamespace(flops=peak))
        monkeypatch.setattr(loop.Meter, "rates", lambda self, peak: found.append((float(self.work), peak)) or {})  # type: ignore[func-returns-value]
        run(settings | {"output": str(tmp_path / f"{peak:g}")})
    assert found[0][0] == found[1][0] > 1e6
    assert [peak for _, peak in found] == [1e9, 4e9]


# TensorBoard ----------------------------------------------------------------------------------------------------------------------------


def test_the_events_of_tensorboard_hold_what_the_log_holds(corpus: MadeCorpus, tmp_path: Path) -> None:
    run(pretraining(corpus, tmp_path / "run", steps=6, log_every=2, tensorboard=True))
    events = scalars(tmp_path / "run")
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in lines(tmp_path / "run"):
        for name in line.keys() - {"step"}:
            expected.setdefault(name, []).append((line["step"], pytest.approx(line[name], rel=1e-6)))
    assert events == expected
    assert {"loss", "lr", "gradient_norm", "device_utilisation", "audio/masked_loss"} <= events.keys()


def test_a_run_that_goes_on_shows_repeated_steps_once(corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = pretraining(corpus, tmp_path / "run", steps=6, log_every=1, save_every=3, tensorboard=True)
    step = Trainer._step

    def stop(self: Trainer, number: int, *rest: Any) -> None:
        if number == 5:
            raise KeyboardInterrupt
        step(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    assert [step for step, _ in scalars(tmp_path / "run")["loss"]] == [1, 2, 3, 4, 5]
    run(settings)
    assert [step for step, _ in scalars(tmp_path / "run")["loss"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("installed", [True, False])
def test_without_tensorboard_or_with_it_turned_off_a_run_writes_its_log_alone(
    corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if not installed:
        hide(monkeypatch, "tensorboard")
    run(pretraining(corpus, tmp_path / "run", steps=2, log_every=1, tensorboard=not installed))
    assert len(lines(tmp_path / "run")) == 2
    assert not (tmp_path / "run" / watching.FOLDER).exists()


# Samples --------------------------------------------------------------------------------------------------------------------------------


def test_fine_tuning_shows_some_validation_utterances_as_they_are_understood(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = recognition(corpus, tmp_path / "run", steps=4, log_every=2, validate_every=2, samples=2, tensorboard=True)
    run(settings)
    shown = [line["samples"] for line in lines(tmp_path / "run") if "valid_wer" in line]
    assert len(shown) == 2
    assert [sample["id"] for sample in shown[0]] == [sample["id"] for sample in shown[1]]
    assert len(shown[0]) == 2
    assert all(set(sample) == {"id", "reference", "text"} and sample["reference"] for sample in shown[0])
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / watching.FOLDER))
    events.Reload()
    (tag,) = (tag for tag in events.Tags()["tensors"] if tag.startswith("samples"))
    written = events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
    assert all(f"| {sample['id']} | {sample['reference']} |" in written for sample in shown[1])


def test_text_of_a_sample_is_no_part_of_its_table(tmp_path: Path) -> None:
    written: list[str] = []
    board = watching.TensorBoard.__new__(watching.TensorBoard)
    board._writer = SimpleNamespace(add_text=lambda tag, text, step: written.append(text), flush=lambda: None)
    board.samples(3, SAMPLES)
    assert written[0].splitlines()[2:] == ["| u1 | bin \\| blue | bin blue |", "| u2 | soon | (nothing) |"]


# Weights & Biases -----------------------------------------------------------------------------------------------------------------------


class FakeRun:
    def __init__(self, **arguments: Any) -> None:
        self.arguments, self.logged, self.finished = arguments, [], False  # type: ignore[var-annotated]

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        assert step_metric in (None, "step")

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """A stand-in for the package: it notes what it is given."""
    runs: list[FakeRun] = []

    def init(**arguments: Any) -> FakeRun:
        runs.append(FakeRun(**arguments))
        return runs[-1]

    fake = SimpleNamespace(init=init, Table=lambda columns, data: (columns, data), __spec__=SimpleNamespace(name="wandb"))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return runs


def test_weights_and_biases_gets_the_lines_the_samples_and_the_settings(tmp_path: Path, service: list[FakeRun]) -> None:
    with Journal(tmp_path, 0, True, False, "lips", {"steps": 7}) as journal:
        journal.write({"step": 3, "loss": 1.5})
        journal.write({"step": 4, "valid_wer": 0.5}, SAMPLES)
    (only,) = service
    assert only.arguments["project"] == "lips"
    assert only.arguments["config"] == {"steps": 7}
    rows = (["utterance", "said", "understood"], [["u1", "bin | blue", "bin blue"], ["u2", "soon", ""]])
    assert only.logged == [{"loss": 1.5, "step": 3}, {"valid_wer": 0.5, "step": 4}, {"samples": rows, "step": 4}]
    assert only.finished


def test_a_run_that_goes_on_is_one_run_there_and_another_folder_is_another(tmp_path: Path, service: list[FakeRun]) -> None:
    (tmp_path / "other").mkdir()
    for folder in (tmp_path, tmp_path, tmp_path / "other"):
        with Journal(folder, 0, True, False, "lips"):
            pass
    ids = [each.arguments["id"] for each in service]
    assert ids[0] == ids[1] != ids[2]
    assert {each.arguments["resume"] for each in service} == {"allow"}


def test_processes_but_the_first_write_nothing_and_call_nobody(tmp_path: Path, service: list[FakeRun]) -> None:
    with Journal(tmp_path, 0, False, True, "lips") as journal:
        journal.write({"step": 1, "loss": 1.0}, SAMPLES)
    assert service == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_asks_for_a_missing_package_says_so_before_it_starts(
    corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "wandb")
    with pytest.raises(
        MissingExtra, match=r"wandb is needed for logging to Weights & Biases \(wandb: lips\); install it with: pip install"
    ):
        run(pretraining(corpus, tmp_path / "run", wandb="lips"))
    assert not (tmp_path / "run").exists()
