"""Stop signals: received from the first line on, kept from libraries, and answered with exit code 75."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from study_runs import environment, finish, processes_with, start, steps, wait_until, words

from cnnjepa import signals
from cnnjepa.errors import Stopped
from cnnjepa.training.stopping import StopRequest


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    """Every stop signal begins as in a shell, also where pytest itself was started with one ignored (`nohup`). Children
    inherit that."""
    usual = {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, usual.get(number, signal.SIG_DFL)) for number in signals.STOPPING}
    yield
    signals.release()
    for number, handler in before.items():
        if handler is not None:  # it was not set from Python
            signal.signal(number, handler)


@pytest.mark.parametrize("number", signals.STOPPING)
def test_every_stop_signal_becomes_a_request_with_its_name(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.reason is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # at once again: a shell and torchrun pass one request on twice
        assert stop.reason == number.name
        with pytest.raises(Stopped, match=number.name):
            stop.tick()
    assert signal.getsignal(number) is before and stop.reason is None


def test_a_signal_that_came_before_the_run_is_its_reason_to_stop() -> None:
    assert signals.listen()
    os.kill(os.getpid(), signal.SIGUSR1)
    with StopRequest() as stop:
        assert stop.reason == "SIGUSR1"
    assert signals.received() == "SIGUSR1"  # the process listens on: a StopRequest gives back only what it took


def test_a_person_who_insists_interrupts_and_a_scheduler_that_repeats_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    signals.listen()
    moment = time.monotonic()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr(signals.time, "monotonic", lambda: moment + 10)
    os.kill(os.getpid(), signal.SIGUSR1)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signals.received() == "SIGUSR1"


def test_a_hang_up_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.reason is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_library_cannot_take_a_stop_signal_but_any_other() -> None:
    real, other = signal.signal, signal.getsignal(signal.SIGALRM)
    with StopRequest() as stop, signals.kept():
        ours = signal.getsignal(signal.SIGTERM)
        assert signal.signal(signal.SIGTERM, signal.SIG_DFL) is ours
        assert signal.signal(signal.SIGALRM, signal.SIG_IGN) is other
        assert signal.getsignal(signal.SIGTERM) is ours and signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
        signal.signal(signal.SIGALRM, other)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGTERM"
    assert signal.signal is real


@pytest.mark.kills
@pytest.mark.processes
def test_a_process_that_is_started_sheltered_misses_no_signal_and_is_not_ended_by_one() -> None:
    child = "from cnnjepa import signals\nprint(flush=True)\ninput()\nsignals.listen()\nprint(signals.received())"
    with StopRequest() as stop:
        with signals.sheltered():
            process = subprocess.Popen(
                [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            # To this thread: threads that libraries have started hold nothing back.
            signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
            assert stop.reason is None
        assert stop.reason == "SIGHUP"
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)  # before it listens
    assert process.communicate("\n", timeout=60)[0] == "SIGHUP\n" and process.returncode == 0


@pytest.mark.parametrize("command", ["train", "probe", "ablate", "search", "benchmark"])
def test_commands_that_can_stop_listen_before_anything_heavy_is_imported(command: str) -> None:
    code = f"""
import os, signal, sys
sys.argv = ["cnnjepa", "{command}"]
class Probe:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "typer", "pydantic", "rich"):
            os.kill(os.getpid(), signal.SIGHUP)
            from cnnjepa import signals
            print(name, signals.received(), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Probe())
from cnnjepa.cli.main import main
main()
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0 and out.stdout.split() == ["typer", "SIGHUP"], out


@pytest.mark.kills
@pytest.mark.processes
def test_a_signal_before_training_leaves_with_75_and_no_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [sys.executable, "-X", "importtime", "-m", "cnnjepa", "train", "--preset", "smoke", "--out", str(run)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:  # Python tells every import: those of torch come next
            if "| typer" in line:
                break
        process.send_signal(signal.SIGUSR1)
        said = process.stderr.read()
    assert process.returncode == 75, said[-2000:]
    assert "cnnjepa: stopped (SIGUSR1); nothing was trained yet, run again: cnnjepa train" in said
    assert not run.exists()


@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "send"), [(signal.SIGTERM, os.killpg), (signal.SIGUSR1, os.kill), (signal.SIGHUP, os.kill)]
)
def test_with_ray_a_signal_to_the_driver_or_its_group_stops_with_checkpoints_and_leaves_no_process(
    number: signal.Signals, send: Callable[[int, int], None], tmp_path: Path
) -> None:
    mark = f"MARK_OF_THIS_TEST=ray-{number.name}"
    name, value = mark.split("=")
    more = ["--set", "runtime.epochs=200", "--set", "probe.every_epochs=0"]
    driver = start(words(tmp_path, *more), environment(tmp_path, STEP_PAUSE="0.1", **{name: value}))
    wait_until(lambda: len(steps(tmp_path)) >= 4)
    send(driver.pid, number)
    code, out = finish(driver)
    assert code == 75, out
    assert f"stopped ({number.name}); the same command resumes the study" in out and "Traceback" not in out
    begun = {path.parent.parent for path in (tmp_path / "runs" / "by_hash").glob("*/checkpoints/last.pt")}
    assert len(begun) == len({process for process, *_ in steps(tmp_path)})
    wait_until(lambda: not processes_with(mark.encode()), seconds=30)
