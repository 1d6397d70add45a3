"""Studies on clusters: a machine is lost, a process of a distributed trial is lost, and who may connect."""

import ipaddress
import os
import signal
import struct
import tempfile
from pathlib import Path

import pytest
from runs import write_images
from study_runs import (
    STEPS,
    assert_same_study,
    environment,
    finish,
    kill,
    processes_with,
    repeated,
    results,
    run,
    start,
    start_alone,
    steps,
    wait_until,
    words,
)

pytestmark = [pytest.mark.processes, pytest.mark.ray]


@pytest.mark.slow
@pytest.mark.kills
def test_a_lost_machine_takes_nothing_with_it(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    undisturbed, tmp_path = tmp_path / "undisturbed", tmp_path / "disturbed"
    code, out = run(words(undisturbed, "--executor", "local"), environment(undisturbed))
    assert code == 0, out
    os.environ.update(environment(tmp_path, STEP_PAUSE="0.1"))
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        lost = cluster.add_node(num_cpus=1)
        driver = start(words(tmp_path, "--address", cluster.address), environment(tmp_path))
        wait_until(lambda: len({process for process, *_ in steps(tmp_path)}) == 2 and len(steps(tmp_path)) > 12)
        cluster.remove_node(lost, allow_graceful=False)
        code, out = finish(driver)
        cluster.shutdown()
    finally:
        for name in ("STEP_LOG", "STEP_PAUSE"):
            os.environ.pop(name, None)
    assert code == 0, out
    assert_same_study(tmp_path, undisturbed)
    assert len(steps(tmp_path)) == 2 * STEPS + repeated(tmp_path)


@pytest.mark.slow
@pytest.mark.kills
def test_a_distributed_trial_survives_the_loss_of_a_process_and_leaves_none_behind(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    arguments = ["--workers-per-trial", "2", "--depths", "1"]
    code, out = run(words(alone, *arguments, "--executor", "local"), environment(alone))
    assert code == 0, out
    env = environment(killed, STEP_KILL=f"9:{killed / 'marker'}", MARK_OF_THIS_TEST="distributed")
    code, out = run(words(killed, *arguments), env, timeout=300)
    assert code == 0, out
    assert (killed / "marker").exists()
    assert_same_study(killed, alone)
    first = [step for step in steps(killed) if step[1] == "0"]
    assert len(first) == STEPS // 2 + repeated(killed)  # global batches of 32
    wait_until(lambda: not processes_with(b"MARK_OF_THIS_TEST=distributed"), seconds=30)


@pytest.mark.slow
def test_a_distributed_trial_ends_with_its_driver_and_goes_on_under_the_local_executor(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    more = ["--workers-per-trial", "2", "--depths", "1", "--executor", "local", "--set", "runtime.epochs=30"]
    more += ["--set", "probe.every_epochs=0"]
    code, out = run(words(alone, *more), environment(alone))
    assert code == 0, out
    driver = start(words(killed, *more), environment(killed, STEP_PAUSE="0.1", MARK_OF_THIS_TEST="torchrun"))
    wait_until(lambda: len(steps(killed)) >= 12)
    kill(driver)
    wait_until(lambda: not processes_with(b"MARK_OF_THIS_TEST=torchrun"), seconds=40)
    assert len(steps(killed)) < 2 * 90  # three steps per epoch, two processes
    code, out = run(words(killed, *more), environment(killed))
    assert code == 0, out
    assert_same_study(killed, alone)
    assert sum(rank == "0" for _, rank, _, _ in steps(killed)) == 90 + repeated(killed)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_distributed_trial_that_one_process_alone_cannot_go_on_with_has_failed(executor: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", train=96, val=48)
    broken = sorted((tmp_path / "images" / "train").rglob("*.png"))[40]
    broken.write_bytes(broken.read_bytes()[:40])
    more = ["--data", str(tmp_path / "images"), "--set", "data.source=folder", "--set", "resident=never"]
    flags = [*more, "--set", "image_size=32", "--set", "workers=0", "--workers-per-trial", "2", "--depths", "1"]
    code, out = run(words(tmp_path, *flags, "--executor", executor), environment(tmp_path))
    assert code == 1 and f"{broken.name} cannot be decoded" in out, out
    (result,) = results(tmp_path).values()
    assert result["status"] == "failed" and broken.name in result["error"]
    assert len({process for process, *_ in steps(tmp_path)}) <= 2  # one attempt


@pytest.mark.slow
def test_a_distributed_trial_that_fails_is_recorded_and_not_tried_again(tmp_path: Path) -> None:
    arguments = words(tmp_path, "--workers-per-trial", "2", "--depths", "1", "--set", "optimizer.lr=1e12")
    code, out = run(arguments, environment(tmp_path))
    assert code == 1 and "the loss is nan at step" in out, out
    (result,) = results(tmp_path).values()
    assert result["status"] == "failed"
    assert len({process for process, *_ in steps(tmp_path)}) == 2


@pytest.mark.slow
def test_embedded_ray_listens_on_this_machine_alone_and_joins_no_other(tmp_path: Path) -> None:
    # Ray leaves the address of the last cluster here; one that is gone must not be waited for. A short path, because
    # Ray keeps sockets below it.
    with tempfile.TemporaryDirectory(prefix="ray") as ray_folder:
        (Path(ray_folder) / "ray").mkdir()
        (Path(ray_folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
        env = environment(tmp_path, STEP_PAUSE="0.3", MARK_OF_THIS_TEST="ports", RAY_TMPDIR=ray_folder)
        driver = start_alone(words(tmp_path), env)
        wait_until(lambda: len(steps(tmp_path)) >= 2)
        heard = listening(processes_with(b"MARK_OF_THIS_TEST=ports"))
        driver.send_signal(signal.SIGINT)
        out, _ = driver.communicate(timeout=180)
    assert driver.returncode == 75, out
    assert heard and all(address.is_loopback for address, _ in heard), heard


def listening(processes: list[int]) -> set[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    """(address, port) of every TCP socket on which one of these processes listens."""
    inodes = set()
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            try:
                inodes.add(os.readlink(descriptor))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                place, port = fields[1].split(":")
                packed = b"".join(struct.pack("=I", int(place[i : i + 8], 16)) for i in range(0, len(place), 8))
                address = ipaddress.ip_address(packed)
                found.add((getattr(address, "ipv4_mapped", None) or address, int(port, 16)))
    return found
