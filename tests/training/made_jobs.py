"""Jobs of several processes on this machine, as torchrun would start them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

# Every run meets at a port of its own: the processes leave the one before one after another.
# Threads of the group that are left when Python ends might abort the process; those of shards are in caches that are not ours.
RUN = (
    "import glob, os, sys; from pathlib import Path; from avtlm import cli\n"
    "sharded = False\n"
    "for argument in sys.argv[1:]:\n"
    "    os.environ['MASTER_PORT'], path = argument.split(':')\n"
    "    code = cli.main(['train', path])\n"
    "    if code:\n"
    "        sys.exit(code)\n"
    "    sharded |= 'fsdp' in Path(path).read_text()\n"
    "    left = [name for name in map(Path, glob.glob('/proc/self/task/*/comm')) if 'gloo' in name.read_text()]\n"
    "    if left and not sharded:\n"
    "        sys.exit(f'{len(left)} threads of the group are left')\n"
)
ROOT = Path(__file__).resolve().parents[2]


def environment(rank: int, count: int) -> dict[str, str]:
    """Of one process of a job."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    return os.environ | place


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(count: int, *runs: dict[str, Any]) -> list[subprocess.Popen[str]]:
    """So many processes that train what the settings describe, one after another."""
    arguments = []
    for settings in runs:
        path = Path(settings["output"]).with_suffix(".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
        arguments.append(f"{free_port()}:{path}")
    return [
        subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments],
            env=environment(rank, count),
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(count)
    ]


def finish(job: list[subprocess.Popen[str]], timeout: float = 300) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each process; none is left behind."""
    try:
        ended = [process.communicate(timeout=timeout) for process in job]
    finally:
        for process in job:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(job, ended, strict=True)]


def run_job(count: int, *runs: dict[str, Any]) -> list[Path]:
    """Train with several processes; the model folders."""
    for code, _, errors in finish(start(count, *runs)):
        assert code == 0, errors
    return [Path(settings["output"]) / "model" for settings in runs]
