"""Large tensors cost few page faults where the system has huge pages."""

import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SCRIPT = """
import resource
from avtlm.memory import use_huge_pages
use_huge_pages()
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.zeros(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    return int(run.stdout)


@pytest.mark.skipif(not SETTING.exists() or "[madvise]" not in SETTING.read_text(), reason="huge pages are not given on demand here")
def test_large_tensors_cost_few_page_faults_unless_the_user_says_otherwise() -> None:
    assert faults() < 0.3 * faults(THP_MEM_ALLOC_ENABLE="0")


FREED = """
from avtlm.memory import give_memory_back
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
blocks = [bytes(100_000) for _ in range(1000)]
blocks = blocks[-1:]
before = resident()
give_memory_back()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is known to keep what was freed")
def test_what_was_freed_goes_back_to_the_system() -> None:
    run = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 50_000  # of 100 MB
