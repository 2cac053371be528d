"""What a benchmark ran on, as its figures state it."""

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def processor(cpu_info: Path = CPU_INFO) -> str:
    """The processor's name by the system's list, which `platform.processor` leaves empty on most Linux systems; else its architecture."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, name = line.partition(":")
        if key.strip() == "model name" and name.strip():
            return name.strip()
    return platform.processor() or platform.machine()
