"""A cluster does what the local pool does: the same files, whatever becomes of its workers and machines. Needs Ray (extra cluster)."""

import functools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtlm.errors import MissingExtra
from preprocess import lip_roi
from preprocess.cluster import RayCluster, Surroundings, _cause, connected, workforce
from preprocess.journal import Journal
from preprocess.pool import Crash, WorkforceError, run_tasks
from tests.made_media import talking, tone, write_media

MEMORY = 80 << 20  # bytes of the store of objects on each machine, about the least that Ray takes
CLIPS = 10


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines, which are groups of processes here, with one CPU each; the second may be lost."""
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'avtlm[cluster]' brings it")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.second = made.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield made
    made.shutdown()


def slow_crops(provider: Any, task: lip_roi.Task) -> dict[str, Any]:
    """Note which machine does the clip, then do it: the second machine takes long, and the first waits for its first clip, after one."""
    import ray

    here, notes = ray.get_runtime_context().get_node_id(), Path(task.out).with_name("starts")
    second, begun = (notes.parent / "second").read_text(), list(notes.glob(f"* {here}"))
    (notes / f"{task.utterance.id} {here}").touch()
    end = time.monotonic() + (30 if here == second else 200 if begun else 0)
    while time.monotonic() < end and (here == second or not list(notes.glob(f"* {second}"))):
        time.sleep(0.05)
    return REAL(provider, task)


REAL = lip_roi.make_crops


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_machine_lost_in_mid_run_costs_nothing_and_the_files_are_those_of_the_local_pool(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.lips.test_crop import _points

    clips, points = tmp_path / "clips", tmp_path / "points"
    (tmp_path / "starts").mkdir()
    clips.mkdir()
    points.mkdir()
    write_media(clips / "00.mp4", talking(0.4), audio=tone(0.4))
    np.save(points / "00.npy", _points(10))
    for number in range(1, CLIPS):
        os.link(clips / "00.mp4", clips / f"{number:02d}.mp4")
        os.link(points / "00.npy", points / f"{number:02d}.npy")
    (clips / "text.mp4").write_text("just words")
    options = {"format": "npy", "landmarks": str(points)}
    lip_roi.run(clips, tmp_path / "local", workers=1, **options)

    monkeypatch.setattr(lip_roi, "make_crops", slow_crops)
    noted: Counter[str] = Counter()
    note = Journal.note
    monkeypatch.setattr(Journal, "note", lambda self, record: (noted.update([record["id"]]), note(self, record)))
    lost = threading.Event()

    def lose_a_machine() -> None:
        """When both machines have done something, in the middle of a clip."""
        while noted.total() < 1 or not list((tmp_path / "starts").glob(f"* {cluster.second.node_id}")):
            time.sleep(0.02)
        cluster.remove_node(cluster.second, allow_graceful=False)
        lost.set()

    (tmp_path / "second").write_text(cluster.second.node_id)
    thief = threading.Thread(target=lose_a_machine, daemon=True)
    thief.start()
    lip_roi.run(clips, tmp_path / "cluster", cluster=cluster.address, **options)
    assert lost.wait(10)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "local")
    assert noted == Counter([*(f"{number:02d}" for number in range(CLIPS)), "text"])  # everything once
    starts = Counter(path.name.split()[0] for path in (tmp_path / "starts").iterdir())
    assert sorted(starts.values()) == [*[1] * CLIPS, 2]  # what the lost machine had in hand was done by the other


def none() -> None:
    pass


def deadly(state: None, task: Path) -> str:
    """The file says how many workers the task takes down."""
    left = int(task.read_text())
    if left:
        task.write_text(str(left - 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return task.name


def refuse(state: None, task: object) -> None:
    raise ZeroDivisionError("no")


def lacking() -> None:
    raise MissingExtra("lips", "mediapipe", "finding faces")


def hang(state: None, task: object) -> None:
    time.sleep(600)


@pytest.mark.slow
def test_dead_and_hung_workers_and_errors_are_told_as_by_the_local_pool(cluster: Any, tmp_path: Path) -> None:
    for name, deaths in (("never", 0), ("once", 1), ("twice", 2)):
        (tmp_path / name).write_text(str(deaths))
    tasks = [tmp_path / name for name in ("twice", "once", "never")]
    with workforce(cluster.address, None, tmp_path) as force:
        results = dict(run_tasks(deadly, tasks, none, force, attempts=2))
        assert results[0] == Crash("took its worker process down twice (it was killed or crashed)")
        assert (results[1], results[2]) == ("once", "never")
        assert dict(run_tasks(hang, [None], none, force, timeout=1.0)) == {0: Crash("took longer than 1 s and was stopped")}
        with pytest.raises(ZeroDivisionError, match="no"):
            list(run_tasks(refuse, [None], none, force))
        with pytest.raises(WorkforceError, match=r"no worker can be used: .*mediapipe is needed for finding faces"):
            list(run_tasks(refuse, [None], lacking, force))
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(WorkforceError, match="0 workers on a cluster; give at least 1"), workforce(cluster.address, 0, tmp_path):
        pass


def test_a_worker_says_what_its_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.cluster.SIGHT", 0.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    assert Surroundings(str(tmp_path), (str(tmp_path / "there"),)).problem() is None
    problem = Surroundings(str(tmp_path), (str(tmp_path / "gone"),)).problem()
    assert problem is not None
    assert "does not see" in problem
    assert "under the same path" in problem
    assert "and not 0.0.1; install the same on all machines" in str(Surroundings(str(tmp_path), (), version="0.0.1").problem())


def test_without_a_cluster_nothing_of_one_is_needed(tmp_path: Path) -> None:
    with workforce(None, 3, tmp_path) as force:
        assert force == 3
    assert list(tmp_path.iterdir()) == []


def test_no_cluster_and_no_ray_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_media(tmp_path / "a.mp4", talking(0.4))
    arguments = [str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out"), "--cluster"]
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "ray", None)
        assert lip_roi.main(arguments) == 2
    assert "ray is needed for working on a cluster; install it with: pip install 'avtlm[cluster]'" in capsys.readouterr().err
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'avtlm[cluster]' brings it")
    monkeypatch.setattr(ray, "init", functools.partial(_refused, "Could not find any running\nRay instance."))
    assert lip_roi.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no Ray cluster runs here (Could not find any running Ray instance.); start one with ray start --head" in error
    with pytest.raises(WorkforceError, match=r"no Ray cluster answers at 10\.0\.0\.9:6379"), connected("10.0.0.9:6379"):
        pass


def _refused(reason: str, **arguments: object) -> None:
    raise ConnectionError(reason)


def test_the_cpus_of_a_cluster_are_counted_unless_workers_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'avtlm[cluster]' brings it")
    found = [{"CPU": 4.0}, {"CPU": 6.0}, {}]
    monkeypatch.setattr(ray, "cluster_resources", lambda: found.pop(0))
    monkeypatch.setattr("preprocess.cluster.COUNT", -1.0)
    force = RayCluster(Surroundings("/", ()))
    assert [force.size() for _ in range(3)] == [4, 6, 0]
    assert RayCluster(Surroundings("/", ()), workers=7).size() == 7


@pytest.mark.parametrize(
    ("message", "words", "machine"),
    [
        (
            "The actor died because its node has died. Node Id: 97\n\tthe node was terminated",
            "its machine was lost",
            True,
        ),
        ("The actor is temporarily unavailable: RpcError: RPC Error message: Socket closed", "its machine was lost", True),
        ("Memory on the node was 15GB / 16GB, which exceeds the memory usage threshold of 0.95.", "its machine ran out of memory", False),
        (
            "The actor is dead because its worker process has died. (1) The process is killed by SIGKILL by OOM killer due to memory.",
            "it was killed or crashed",
            False,
        ),
    ],
)
def test_what_ray_says_of_a_dead_worker_is_told_in_a_few_words(message: str, words: str, machine: bool) -> None:
    assert _cause(message) == (words, machine)
