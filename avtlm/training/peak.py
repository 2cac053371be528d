"""What a device can do at most, which is what the useful operations of a step are compared with.

For a GPU that stands in the table it is the rate of its datasheet, dense (no sparsity): of tensor cores in bfloat16, of ordinary ones in
float32, unless PyTorch is allowed TensorFloat-32. For a CPU, and for a GPU that is not in the table, it is measured: the best of a few
products of large square matrices.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDES = {"cpu": 1024, "cuda": 8192}  # of the matrices of a measurement
SECONDS, LEAST_PRODUCTS = 0.15, 3


@dataclass(frozen=True)
class Datasheet:
    """One GPU.

    Attributes:
        words: all of them stand in the name that the driver gives, in lower case.
        bf16, tf32, fp32: operations per second, in 10^12; None where the device has no such units.
        memory: in GB.
    """

    name: str
    words: tuple[str, ...]
    bf16: float | None
    tf32: float | None
    fp32: float
    memory: float


# More special names come before those that they contain. A user's short name ("h100") is the first that fits.
DATASHEETS = (
    Datasheet("B200", ("b200",), 2250, 1125, 75, 180),
    Datasheet("GH200", ("gh200",), 990, 494, 67, 96),
    Datasheet("H200 NVL", ("h200", "nvl"), 835.5, 417.5, 60, 141),
    Datasheet("H200", ("h200",), 989.5, 494.7, 67, 141),
    Datasheet("H100 NVL", ("h100", "nvl"), 835.5, 417.5, 60, 94),
    Datasheet("H100 PCIe", ("h100", "pcie"), 756, 378, 51, 80),
    Datasheet("H100", ("h100",), 989.5, 494.7, 67, 80),
    Datasheet("A100 40GB", ("a100", "40gb"), 312, 156, 19.5, 40),
    Datasheet("A100", ("a100",), 312, 156, 19.5, 80),
    Datasheet("A40", ("a40",), 149.7, 74.8, 37.4, 48),
    Datasheet("A30", ("a30",), 165, 82, 10.3, 24),
    Datasheet("A10", ("a10",), 125, 62.5, 31.2, 24),
    Datasheet("L40S", ("l40s",), 362, 183, 91.6, 48),
    Datasheet("L40", ("l40",), 181, 90.5, 90.5, 48),
    Datasheet("L4", ("l4",), 121, 60, 30.3, 24),
    Datasheet("V100", ("v100",), None, None, 15.7, 32),
    Datasheet("T4", ("t4",), None, None, 8.1, 16),
)


@dataclass(frozen=True)
class Peak:
    """A rate and where it is from.

    Attributes:
        flops: operations per second.
        source: ``measured``, or ``datasheet of NAME``.
    """

    flops: float
    source: str


def datasheet(name: str) -> Datasheet | None:
    """The datasheet of a GPU by the driver's name for it, such as ``NVIDIA H100 80GB HBM3``, or by a short one; None if there is none."""
    parts = name.lower().replace("-", " ").replace("_", " ").split()
    return next((sheet for sheet in DATASHEETS if all(any(_is(word, part) for part in parts) for word in sheet.words)), None)


def _is(word: str, part: str) -> bool:
    """Whether a word of a name means a device: ``a10g`` or ``a100`` is no A10, ``h100nvl`` is an H100."""
    return part == word or (part.startswith(word) and part[len(word) :] in ("nvl", "pcie", "sxm", "sxm2", "sxm4", "sxm5", "80gb", "40gb"))


def rate_of(sheet: Datasheet, precision: str, tf32: bool = False) -> float | None:
    """Operations per second at a precision (``fp32`` or ``bf16``); None where the device has no units for it.

    Args:
        tf32: whether products of float32 matrices may be rounded to TensorFloat-32.
    """
    rate = sheet.bf16 if precision == "bf16" else (sheet.tf32 if tf32 and sheet.tf32 is not None else sheet.fp32)
    return None if rate is None else rate * 1e12


def peak_rate(device: torch.device, precision: str) -> Peak:
    """What a device can do at a precision, ``fp32`` or ``bf16``. A measurement takes some tenths of a second, once in a process."""
    if device.type == "cuda":
        sheet = datasheet(torch.cuda.get_device_name(device))
        rate = None if sheet is None else rate_of(sheet, precision, torch.get_float32_matmul_precision() != "highest")
        if sheet is not None and rate is not None:
            return Peak(rate, f"datasheet of {sheet.name}")
    return Peak(_measured(str(device), precision, torch.get_num_threads()), "measured")


@functools.cache
def _measured(device: str, precision: str, threads: int) -> float:
    del threads  # another number is another measurement
    kind = torch.device(device).type
    return matrix_rate(precision, device, SIDES.get(kind, 2048), products=LEAST_PRODUCTS, seconds=SECONDS)


def matrix_rate(
    precision: str,
    device: str,
    side: int,
    products: int = 3,
    seconds: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The best rate (operations per second) of the product of two square matrices.

    Args:
        products: at least so many, after a first one that does not count.
        seconds: go on for so long.
    """
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(side, side, generator=generator).to(device, PRECISIONS[precision]) for _ in range(2))
    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
        one @ other
        synchronize(device)
        times: list[float] = []
        while len(times) < products or sum(times) < seconds:
            start = clock()
            one @ other
            synchronize(device)
            times.append(max(clock() - start, 1e-9))
    return 2.0 * side**3 / min(times)


def synchronize(device: str | torch.device) -> None:
    """Wait until a GPU is done; a CPU always is."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
