"""The `cnnjepa` command and Python scripts in processes that are forked from one that has loaded the libraries.

Loading torch takes four seconds; a fork takes a tenth of one. Arguments, environment, working directory, streams,
signals and exit code are those of a process of its own. What imports cost, and variables that are read while the
libraries load, need a real one: `cnnjepa_alone`.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runs import SERVER

TESTS = str(Path(__file__).parent)


def cnnjepa(
    *words: str, cwd: Path | None = None, timeout: float = 300, without: tuple[str, ...] = (), **variables: str
) -> "Done":
    """Run `cnnjepa WORDS`, 200 columns wide, and wait for it.

    `without`: a package that cannot be imported, and the modules of ours that import it. `variables` are added to the
    environment.
    """
    return _finished(_cnnjepa, (without, *words), cwd, {"COLUMNS": "200", **variables}, timeout)


def run_file(
    path: Path, cwd: Path, *filters: str, arguments: tuple[str, ...] = (), timeout: float = 500, **variables: str
) -> "Done":
    """Run a Python file as `__main__` with `arguments`. `filters` are those of Python's option -W."""
    return _finished(_script, (path, filters, arguments), cwd, variables, timeout)


def cnnjepa_alone(*words: str, timeout: float = 300, **variables: str) -> "Done":
    """Run `cnnjepa WORDS`, 200 columns wide, in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-m", "cnnjepa", *words], capture_output=True, text=True, timeout=timeout,
        env={**os.environ, "COLUMNS": "200", **variables},
    )  # fmt: skip


Done = subprocess.CompletedProcess[str]


def _finished(
    work: Callable[..., None], words: tuple[Any, ...], cwd: Path | None, variables: Mapping[str, str], timeout: float
) -> Done:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = SERVER.Process(
            target=child, args=(work, words, str(cwd or Path.cwd()), {**os.environ, **variables}, *map(str, files))
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
        out, err = (file.read_text(encoding="utf-8") if file.exists() else "" for file in files)
        code = process.exitcode
        process.close()
        if code is None:
            raise subprocess.TimeoutExpired(str(words), timeout, out, err)
        return subprocess.CompletedProcess(str(words), code, out, err)


def child(
    work: Callable[..., None], words: tuple[Any, ...], cwd: str, environment: dict[str, str], out: str, err: str
) -> None:
    for descriptor, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    # A forked child would start its own children as it was started itself.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:] = [path for path in sys.path if path != TESTS]
    try:
        work(*words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()


def _cnnjepa(without: tuple[str, ...], *words: str) -> None:
    from cnnjepa.cli.main import main

    for name in [name for name in sys.modules if any(f"{name}.".startswith(f"{gone}.") for gone in without)]:
        del sys.modules[name]
    if without:
        sys.modules[without[0]] = None  # type: ignore[assignment]
    sys.path.insert(0, os.getcwd())
    sys.argv = ["cnnjepa", *words]
    main()


def _script(path: Path, filters: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    sys.path.insert(0, str(path.parent))
    sys.argv = [str(path), *arguments]
    warnings._processoptions(list(filters))  # type: ignore[attr-defined]
    runpy.run_path(str(path), run_name="__main__")
