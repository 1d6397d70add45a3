"""The environment variables that torchrun, or a script around srun, sets for every process of a run. This module
imports no large library."""

import os
from typing import NamedTuple

from cnnjepa.schemas.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

# Variables of launchers that have started, or will start, every process: torchrun, srun, Open MPI, MPICH.
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")

# Assumptions: the seconds within which all processes must join. torchrun waits for the machines before it starts any
# process, so this covers importing torch from a slow file system. Without a launcher and on one machine, processes
# start together.
_JOIN_SECONDS, _JOIN_SECONDS_BY_HAND = 300.0, 20.0


class Launch(NamedTuple):
    """Position of this process among those that were started together."""

    rank: int
    world_size: int
    local_rank: int
    patience: float
    """Seconds within which all processes must join."""


def launched() -> Launch:
    """Read the variables. Raises ConfigError, which names them, if they do not describe a launch. In that case they are
    usually left over from another job."""
    given = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    rank, world_size, local_rank = (_number(name, default) for name, default in zip(VARIABLES, (0, 1, 0), strict=False))
    if world_size == 1:
        stray = [name for name, value in (("RANK", rank), ("LOCAL_RANK", local_rank)) if value != 0]
        if stray:
            raise refusal(
                f"{_shown(stray)} of a run of one process (WORLD_SIZE is {given.get('WORLD_SIZE', 'not set')})"
            )
        return Launch(0, 1, 0, _JOIN_SECONDS)
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not given.get(name)]
    if missing:
        raise refusal(f"{_shown(['WORLD_SIZE'])} without {', '.join(missing)}")
    if world_size < 1 or not 0 <= rank < world_size:
        raise refusal(f"{_shown(['RANK', 'WORLD_SIZE'])}: a rank must be one of 0 to WORLD_SIZE - 1")
    if not 0 < _number("MASTER_PORT", 0) < 2**16:
        raise refusal(f"{_shown(['MASTER_PORT'])} must be a port, 1 to 65535")
    by_hand = not any(name in os.environ for name in _LAUNCHERS) and _is_this_machine(given["MASTER_ADDR"])
    return Launch(rank, world_size, local_rank, _JOIN_SECONDS_BY_HAND if by_hand else _JOIN_SECONDS)


def refusal(what: str) -> ConfigError:
    """Return the error for variables that describe no launch, with a remedy."""
    given = [name for name in VARIABLES if name in os.environ]
    return ConfigError(
        f"{what}: variables of a launcher, left over from another job? For one process: unset {' '.join(given)}; "
        "for several: torchrun --nproc-per-node N -m cnnjepa …, which sets them"
    )


def alone() -> None:
    """Remove the variables: this process is a complete run, even if its parent is part of a launch."""
    for name in VARIABLES:
        os.environ.pop(name, None)


def _shown(names: list[str]) -> str:
    return ", ".join(f"{name}={os.environ.get(name, '')}" for name in names)


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise refusal(f"{name}={os.environ[name]!r} is not a whole number") from None


def _is_this_machine(address: str) -> bool:
    return address in ("localhost", "::1") or address.startswith("127.")
