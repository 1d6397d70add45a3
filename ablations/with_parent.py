"""Runs a command that ends with the process that started it: `python -m cnnjepa.ablations.with_parent PID COMMAND…`.

A trial must not outlive its driver unseen. Nothing heavy is imported, so that there is no moment at which the driver's
end goes unnoticed; what is asked of the kernel here holds for COMMAND too, which takes this process over.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2), Linux


def main() -> None:
    """SIGTERM to this process when the one of that PID ends; elsewhere than on Linux, only a check that it is there."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the process that asked for this one is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
