"""Connection to Ray: embedded on this machine, or a running cluster."""

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnjepa import signals
from cnnjepa.ablations.ray_folder import ray_folder
from cnnjepa.ablations.resources import Capacity, this_machine
from cnnjepa.schemas import ConfigError

# Time limits for an address without an answering Ray, which is reported within 30 s: the first for the connection, the
# second for Ray's own checks.
_CONNECT_SECONDS = 5.0
_JOIN_SECONDS = 20.0

# Settings for Ray's worker processes. Our own tables and loggers replace Ray's, and nothing is sent anywhere.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it aborts on SIGTERM, below Python's handlers
    # Under `uv run` Ray would pack the working directory, images and all, and send it to every trial.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "auto",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "0",
}


@contextlib.contextmanager
def ray_at(address: str | None) -> Iterator[Capacity]:
    """Connect to Ray while the context is entered: embedded on this machine (`None`; it listens on localhost only and
    has no dashboard), or the cluster at `address` (`auto`: the one running here or named by RAY_ADDRESS). Yield its
    capacity.

    The stop-signal handlers of this process stay in force, whatever Ray and Tune install. Signals to the process group
    do not reach the processes of an embedded Ray. Raises ConfigError when nothing answers at the address.
    """
    with signals.kept():
        yield from _ray_at(address)


def _ray_at(address: str | None) -> Iterator[Capacity]:
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    folder = ray_folder() if address is None else None
    if address is None:
        _authenticate()
        # Without this setting, Ray on Linux treats a loopback address as a mistake and listens on every interface.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ModuleNotFoundError as missing:
        if missing.name != "ray":
            raise
        raise ConfigError(
            "spreading trials needs Ray, which is not installed: pip install 'ray[tune]' (studies, not searches, also "
            "run with --executor local)"
        ) from None
    ours = not ray.is_initialized()
    if ours:
        # Ray's own processes are ended by SIGKILL if SIGTERM does not end them within a second.
        with signals.sheltered(term=True):
            _connect(ray, address, folder)
        signals.reclaim()
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        if ours and address is None:
            assert [node["NodeManagerAddress"] for node in alive] == ["127.0.0.1"], (
                "Ray was imported before its settings"
            )
        nodes = [node["Resources"] for node in alive]
        yield Capacity([(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes])
    finally:
        if ours:
            ray.shutdown()


def _authenticate() -> None:
    """Set a token for the embedded Ray in the environment. Without one, Ray writes ~/.ray/auth_token, and some home
    folders cannot be written."""
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _connect(ray: Any, address: str | None, folder: Path | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}  # outcomes are reported by us
    if address is None:
        os.environ.pop("RAY_ADDRESS", None)
        # `local`: otherwise Ray would join the cluster that was last started on this machine, even one that has ended.
        cpus = int(this_machine().cpus)  # CPUs that this process may use; Ray would count all of the machine
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
            **quiet,
        )
        return
    _refuse_silence(address)
    failure: list[BaseException] = []

    def join() -> None:
        try:
            ray.init(address=address, **quiet)
        except BaseException as error:
            failure.append(error)

    # Ray retries for minutes when a program other than Ray answers at the address.
    attempt = threading.Thread(target=join, daemon=True)
    attempt.start()
    attempt.join(_JOIN_SECONDS)
    if attempt.is_alive() or failure:
        reason = str(failure[0]).strip().splitlines()[0] if failure else f"no answer within {_JOIN_SECONDS:g} s"
        raise ConfigError(
            f"--address {address}: no Ray cluster can be joined there ({reason}); `ray start --head` starts one, `ray "
            "status` shows it. A cluster that requires a token needs RAY_AUTH_MODE=token and its ~/.ray/auth_token "
            "here (--address auto finds them itself). Without --address one is embedded in this machine"
        )


def _refuse_silence(address: str) -> None:
    """Raise ConfigError when `host:port` does not even accept a connection."""
    place = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    place = place.removeprefix("ray://")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        if place == "auto":
            return
        raise ConfigError(f"--address {address} must be auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--address {address}: no answer at {host}:{port} ({error}); `ray start --head` starts a cluster, and "
            "without --address one is embedded in this machine"
        ) from None
