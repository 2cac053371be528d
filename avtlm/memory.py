"""How PyTorch asks for memory on a CPU, and gives it back."""

import ctypes
import os


def use_huge_pages() -> None:
    """Let PyTorch take large tensors in pages of 2 MB where Linux offers them; before it makes its first tensor, and unless the user has
    chosen.

    Tensors over 32 MB, such as the first convolutions of a waveform make, are mapped anew each time, and the system clears their pages on
    first use. In pages of 4 KB that takes longer than norms and activations themselves; in pages of 2 MB a fraction of it.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def give_memory_back() -> None:
    """Let the C library return what was freed to the system, where it can (glibc).

    It keeps freed blocks of many sizes between those in use, so that a process that computes batch after batch of differing lengths grows
    although nothing is held.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
