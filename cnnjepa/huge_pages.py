"""Memory in pages of 2 MiB, for large tensors on a CPU.

glibc gives tensors of 32 MiB and more back to the system when they are freed, so every step touches them anew, 4 KiB
at a time: a tenth of a ResNet-50 step (docs/performance.md). The results' bits do not depend on it.
"""

import os

SWITCH = "THP_MEM_ALLOC_ENABLE"
"""Torch's name of it in the environment; `0` switches it off."""


def ask_for_huge_pages() -> None:
    """Has torch ask Linux for huge pages under tensors of 2 MiB and more, in this process and those that it starts;
    for programs, before their first such tensor. A value that is set already stays. Elsewhere than on Linux, and where
    /sys/kernel/mm/transparent_hugepage/enabled says `never`, it does nothing. Source: PyTorch pull request 107697."""
    os.environ.setdefault(SWITCH, "1")
