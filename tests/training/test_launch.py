"""The launchers of docs/launch are what the guide says they are: they run."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.made_corpus import make_corpus
from tests.training.made_jobs import ROOT
from tests.training.made_runs import journal, pretraining

LAUNCHERS = sorted((ROOT / "docs" / "launch").glob("*.sh"))
# Slurm's part: every task is the command with its own numbers.
SRUN = """#!/usr/bin/env bash
[ "$1" = --kill-on-bad-exit=1 ] && shift
for task in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
done
for task in $(seq $SLURM_NTASKS); do wait -n || exit 1; done
"""
SCONTROL = '#!/usr/bin/env bash\n[ "$1 $2" = "show hostnames" ] && echo 127.0.0.1\n'


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.name)
def test_launchers_are_valid_shell(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    result = subprocess.run(["bash", str(path)], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "usage:" in result.stderr


def test_a_run_begun_under_slurm_goes_on_under_torchrun_and_stops_well(tmp_path: Path) -> None:
    assert {path.name for path in LAUNCHERS} == {"single_node.sh", "slurm.sh"}
    corpus = make_corpus(tmp_path / "corpus", 12)
    settings: dict[str, Any] = pretraining(corpus, tmp_path / "run", steps=2)
    settings["sources"] = {"audio": settings["sources"]["audio"]}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    shared = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    slurm = shared | {"SLURM_JOB_NODELIST": "here", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2"}
    command = ["bash", str(ROOT / "docs/launch/slurm.sh"), str(tmp_path / "run.yaml"), "log_every=1"]
    first = subprocess.run(command, env=slurm, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"model: {tmp_path}/run/model\n"
    assert [line["step"] for line in journal(tmp_path / "run" / "model")] == [1, 2]

    command = ["bash", str(ROOT / "docs/launch/single_node.sh"), str(tmp_path / "run.yaml"), "steps=5000", "log_every=1", "parallel=fsdp"]
    single = shared | {"PROCESSES": "2"}
    second = subprocess.Popen(command, env=single, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while len(journal(tmp_path / "run" / "model")) < 4 and second.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    second.send_signal(signal.SIGTERM)
    printed, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    assert "resuming at step 2" in errors
    done = json.loads((tmp_path / "run/model/trainer/state.json").read_text())["step"]
    assert f"SIGTERM; stopped at step {done} of 5000 with a checkpoint" in errors
    assert 4 <= done < 5000
    assert printed == f"model: {tmp_path}/run/model\n"
