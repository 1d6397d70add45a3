"""Error messages for failures, with the action that the user can take."""

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist

from cnnjepa.data.workers import loader_failure
from cnnjepa.errors import ProcessLostError, RunError, Stopped
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.training.distributed import KINDS, Processes, kind_of, named, text_of

# Message texts of the libraries that torch calls. Source: torch 2.14's and NCCL's texts.
_NO_MEMORY = re.compile(r"out of memory|ALLOC_FAILED|can't allocate memory|not enough memory", re.IGNORECASE)

_NO_CONNECTION = re.compile(r"gloo|connection (closed|reset|refused)|broken pipe|NCCL", re.IGNORECASE)

RESUMES = ". The run resumes from its last checkpoint with --resume"


def explained(error: Exception, config: PretrainConfig, processes: Processes | None = None) -> Exception:
    """Return `error` as RunError with cause and remedy if both are known (memory, lost processes); otherwise
    unchanged."""
    if isinstance(error, RunError | ConfigError):
        return error
    explanation: RunError | None = loader_failure(error)
    if explanation is None and _lacks_memory(error):
        explanation = RunError(_out_of_memory(error, config))
    if explanation is None and processes is not None and processes.world_size > 1 and _lacks_connection(error):
        explanation = ProcessLostError(
            "the connection to another process of the run broke: that process was killed (lack of memory?), or its "
            "machine failed"
        )
    if explanation is None:
        return error
    explanation.__cause__ = error
    return explanation


@contextlib.contextmanager
def failing_together(
    processes: Processes, config: PretrainConfig, record: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Raise one process's failure on all processes. The first process that fails calls `record` with the reason.

    A refusal (ConfigError) is not recorded. A stop is agreed on by all processes and passes through.
    """
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        failure = _agreed(processes, with_remedy(explained(error, config, processes)), record)
        if failure is error:
            raise
        raise failure  # noqa: B904 - its cause is set


def _agreed(processes: Processes, own: Exception, record: Callable[[str], None] | None) -> Exception:
    """Return the error that this process raises, after recording its own error or receiving another process's."""
    watch, text, kind = processes.failures, text_of(own), kind_of(own)
    if watch is not None:
        if watch.reported is None and not watch.claim():
            watch.hear()
        if watch.reported is not None:
            first_kind, first = watch.reported
            return own if first.endswith(text) else KINDS[first_kind](first).with_traceback(own.__traceback__)
        text = named(processes.rank, text)
    if record is not None and kind not in ("busy", "refused"):
        with contextlib.suppress(RunError, OSError):  # a full disk may refuse this too
            record(text)
    if watch is None:
        return own
    watch.say(kind, text)
    if not isinstance(own, KINDS[kind]):
        return own  # an unexpected error keeps its own kind
    explained_own = type(own)(text)
    explained_own.__cause__ = own
    return explained_own


def with_remedy(error: Exception) -> Exception:
    """Return the error as a training run shows it. If a process was lost, the message says that there is a
    checkpoint."""
    if not isinstance(error, ProcessLostError) or "--resume" in str(error):
        return error
    explanation = ProcessLostError(f"{error}{RESUMES}")
    explanation.__cause__ = error.__cause__
    return explanation


@contextlib.contextmanager
def explaining(config: PretrainConfig) -> Iterator[None]:
    """Replace an error raised in the block by the one that `explained` returns."""
    try:
        yield
    except Exception as error:
        explanation = explained(error, config)
        if explanation is error:
            raise
        raise explanation  # noqa: B904 - its cause is set


def _lacks_connection(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and bool(_NO_CONNECTION.search(str(error)))
    )


def _lacks_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def _out_of_memory(error: Exception, config: PretrainConfig) -> str:
    text = str(error)
    where = "the GPU" if re.search(r"CUDA|CUDNN|CUBLAS|NCCL", text, re.IGNORECASE) else "the machine"
    found = re.findall(r"(?<=ried to allocate )[\d.]+ \w+|total capacity of [\d.]+ \w+", text)
    details = f" (requested: {', '.join(found)})" if found else ""
    runtime = config.runtime
    if _in_probe(error):
        return (
            f"{where} ran out of memory in a probe{details}: lower probe.feature_batch_size (now "
            f"{config.probe.feature_batch_size}) or probe.linear_batch_size (now {config.probe.linear_batch_size}), "
            "then resume with --resume"
        )
    bf16 = "set runtime.precision=bf16, " if runtime.precision != "bf16" else ""
    return (
        f"{where} ran out of memory{details}: raise runtime.accumulation (now {runtime.accumulation}; it must divide "
        f"the batch), {bf16}or lower runtime.batch_size (now {runtime.batch_size} on each process); these make another "
        "run. If other processes use the same memory, end them and resume with --resume"
    )


def _in_probe(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("cnnjepa.probes.") for frame, _ in frames)
