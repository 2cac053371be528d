"""Where figures come from: the machine, the versions and the command. A run notes it at every start, in ``starts.jsonl``."""

import json
import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

STARTS = "starts.jsonl"
CPU_INFO = Path("/proc/cpuinfo")
PACKAGES = ("torch", "torchaudio", "torchvision", "numpy", "xformers")


def processor(cpu_info: Path = CPU_INFO) -> str:
    """The processor's name by the system's list, which `platform.processor` leaves empty on most Linux systems; else its architecture."""
    lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines() if cpu_info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, names), platform.processor() or platform.machine())


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": processor(), "cores": os.cpu_count(), "gpu": gpu, "python": platform.python_version(), "torch": torch.__version__}


def versions() -> dict[str, str]:
    """Of this library and of those that compute for it, as far as they are installed."""
    import importlib.metadata

    from avtlm import __version__

    found = {"avtlm": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def command() -> str:
    """How this process was started, as one types it; of the program only its name."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def origin() -> dict[str, Any]:
    """``time`` (UTC), ``command``, ``machine`` and ``versions``, as plain values."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"time": now, "command": command(), "machine": machine(), "versions": versions()}


def note_start(folder: Path, **further: Any) -> None:
    """Add a line to the starts of a run."""
    with open(folder / STARTS, "a", encoding="utf-8") as journal:
        journal.write(json.dumps({**further, **origin()}, ensure_ascii=False) + "\n")
