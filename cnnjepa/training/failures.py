"""Failures in words that say what a person can do about them."""

import contextlib
import re
import traceback
from collections.abc import Iterator

import torch

from cnnjepa.data.workers import loader_failure
from cnnjepa.errors import ProcessLostError, RunError
from cnnjepa.schemas import ConfigError, PretrainConfig

# The libraries that torch calls have messages of their own. Source: torch 2.14's and NCCL's texts.
_NO_MEMORY = re.compile(r"out of memory|ALLOC_FAILED|can't allocate memory|not enough memory", re.IGNORECASE)


def explained(error: Exception, config: PretrainConfig) -> Exception:
    """`error` as RunError with cause and remedy where both are known (memory, loader processes); else as it is."""
    if isinstance(error, RunError | ConfigError):
        return error
    told: RunError | None = loader_failure(error)
    if told is None and _lacks_memory(error):
        told = RunError(_out_of_memory(error, config))
    if told is None:
        return error
    told.__cause__ = error
    return told


def with_remedy(error: Exception) -> Exception:
    """The error as a training run shows it: a lost process leaves a checkpoint."""
    if not isinstance(error, ProcessLostError) or "--resume" in str(error):
        return error
    told = ProcessLostError(f"{error}. The run resumes from its last checkpoint with --resume")
    told.__cause__ = error.__cause__
    return told


@contextlib.contextmanager
def explaining(config: PretrainConfig) -> Iterator[None]:
    """Raises what `explained` makes of an error."""
    try:
        yield
    except Exception as error:
        told = explained(error, config)
        if told is error:
            raise
        raise told  # noqa: B904 - its cause is set


def text_of(error: Exception) -> str:
    """What result.json says: an unexpected error's kind as well."""
    return str(error) if isinstance(error, RunError | ConfigError) else f"{type(error).__name__}: {error}"


def _lacks_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def _out_of_memory(error: Exception, config: PretrainConfig) -> str:
    text = str(error)
    where = "the GPU" if re.search(r"CUDA|CUDNN|CUBLAS|NCCL", text, re.IGNORECASE) else "the machine"
    found = re.findall(r"(?<=ried to allocate )[\d.]+ \w+|total capacity of [\d.]+ \w+", text)
    details = f" (asked for {', '.join(found)})" if found else ""
    runtime = config.runtime
    if _in_probe(error):
        return (
            f"{where} ran out of memory in a probe{details}: lower probe.feature_batch_size (now "
            f"{config.probe.feature_batch_size}) or probe.linear_batch_size (now {config.probe.linear_batch_size}), "
            "then go on with --resume"
        )
    bf16 = "set runtime.precision=bf16, " if runtime.precision != "bf16" else ""
    return (
        f"{where} ran out of memory{details}: raise runtime.accumulation (now {runtime.accumulation}; it must divide "
        f"the batch), {bf16}or lower runtime.batch_size (now {runtime.batch_size} on each process); these make another "
        "run. If other processes use the same memory, end them and go on with --resume"
    )


def _in_probe(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("cnnjepa.probes.") for frame, _ in frames)
