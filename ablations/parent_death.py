"""Launcher of a command that ends with its parent process: `python -m cnnjepa.ablations.parent_death PID COMMAND…`.

A trial must not outlive its driver unnoticed. Only light modules are imported, so that the end of the driver is noticed
at any moment. The request to the kernel also holds for COMMAND, which replaces this process.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2), Linux


def main() -> None:
    """Request SIGTERM for this process when its parent PID ends, check that PID is still the parent, and run COMMAND.
    Outside Linux there is only the check."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the parent process has ended")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
