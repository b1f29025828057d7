"""Ray: how it starts, what a worker finds in its environment, and how many trials fit."""

import contextlib
import errno
import itertools
import logging
import os
import signal
import socket
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.job_config import JobConfig

from methods.errors import ClusterDown, ClusterError
from methods.files import NO_ROOM
from methods.machine import cores
from orchestrator.record.address import bounded
from orchestrator.study.check import slots, slots_here
from orchestrator.study.sections import Resources
from orchestrator.sweep import signals

for _name in ("ray.tune.tune", "ray.tune.execution.tune_controller"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # the ledger records which trials failed

ANSWER = 5.0
"""Seconds that a cluster has to answer."""
REPLY = 20.0
"""Seconds for what speaks gRPC to answer as Ray does, which else asks it for minutes."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""The first bytes of a client of HTTP/2: the fixed greeting, and empty settings (RFC 9113, 3.4)."""
SETTINGS = b"\x04"
"""Type of the frame with which its server must begin, in the fourth byte."""
SLOW_START = ("timed out during startup", "Timed out waiting for file")
"""What Ray says, in plain Exceptions, where its processes take longer than 30 s to start."""
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # a spinning barrier makes shared cores 10 times slower
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output cannot be silenced
    "RAY_memory_monitor_refresh_ms": "0",  # its kills would end the sweep, not only the trial
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a trial that is lost is served again
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # a worker's death shows by then
    "RAY_TRAIN_V2_ENABLED": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the ledger records why, in a line
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the ledger is the state
    "TUNE_WARN_THRESHOLD_S": "60",
    # Short epochs are sent together: each message costs the driver time while the worker waits.
    "TUNE_RESULT_BUFFER_LENGTH": "1000",
    "TUNE_RESULT_BUFFER_MIN_TIME_S": "1",
    "TUNE_RESULT_BUFFER_MAX_TIME_S": "1",
}


def preflight(resources: Resources, address: str, at_once: int | None = None) -> None:
    """Refuse what this machine or the cluster cannot run, before anything is written.

    Raises:
        ClusterError: no cluster at the address, or a trial needs more than its largest node has.
        ClusterDown: nothing answers at the address, or what answers is no Ray.
    """
    if address == "local":
        slots_here(resources)
    else:
        with started(resources, address, at_once):
            pass


@contextlib.contextmanager
def started(resources: Resources, address: str, at_once: int | None = None) -> Iterator[int]:
    """Starts or joins Ray for the block; gives the number of trials that run at once.

    That number is `at_once`, where nodes come and go, or as many as the nodes hold now.

    Raises:
        ClusterError: the address is none, or no node holds one trial.
        ClusterDown: Ray does not start, or what answers at the address is no Ray.
        ConnectionError: Ray did not start in time.
    """
    _check(address)
    if ray.is_initialized():
        raise ClusterError(
            "a sweep starts its own Ray, but this process is connected to one already; "
            "`ray.shutdown()` disconnects it"
        )
    threads = {"OMP_NUM_THREADS": str(max(1, int(resources.cpu)))}
    os.environ.update(ENVIRONMENT | threads)
    if address == "local":
        os.environ["RAY_AUTH_MODE"] = "disabled"
    on_stop = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        with signals.no_hang_up():
            ray.init(
                address=address,
                num_cpus=cores() if address == "local" else None,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.CRITICAL,  # its errors are raised, too
                runtime_env=None if address == "local" else {"env_vars": ENVIRONMENT | threads},
                job_config=_Job(),
            )
    except Exception as error:
        ray.shutdown()
        raise _explained(error, address) from None
    except BaseException:
        ray.shutdown()
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_stop)  # Ray sets its own
    ray._private.worker._worker_logs_enabled = False  # raylets' dumps; we report what matters
    hurried = False
    try:
        nodes = [
            (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()
            if node["Alive"]
        ]
        yield at_once or slots(resources, nodes)
    except KeyboardInterrupt:
        # the Ray that we started notices that we leave
        hurried = address != "local" and signals.reason() is signals.Terminated
        raise
    finally:
        if not hurried:
            ray.shutdown()


class _Job(JobConfig):  # type: ignore[misc]
    """A job whose workers look for modules in the same places as its driver.

    Ray puts the working folder before all of them, where a user's file `methods.py` would replace
    the package that every trial imports.
    """

    def __init__(self) -> None:
        super().__init__(_py_driver_sys_path=driver_path()[::-1])  # a worker prepends one by one

    def _runtime_env_has_working_dir(self) -> bool:
        """Keeps Ray from adding a folder itself."""
        return True


def driver_path() -> list[str]:
    """Where this process looks for modules before the standard library, first to last."""
    library = sysconfig.get_path("stdlib")
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    before = itertools.takewhile(
        lambda entry: entry != library and Path(entry).name != archive, sys.path
    )
    return [str(Path(entry).absolute()) for entry in before]


def _check(address: str) -> None:
    """Ask the port before Ray does, which would ask for minutes.

    Ray speaks gRPC, so HTTP/2: a server that does not answer in it is no Ray.

    Raises:
        ClusterError: Ray's client cannot run a sweep.
        ClusterDown: nothing answers at the address, or what answers is no Ray.
    """
    host, _, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise ClusterError(
            f"a sweep's driver runs on a node of its cluster, but {address!r} is for Ray's client "
            "elsewhere; submit the sweep with `ray job submit`, or name the head: --address "
            f"{host.removeprefix('ray://')}:6379"
        )
    if not port.isdigit():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            connection.settimeout(ANSWER)
            connection.sendall(PREFACE)
            speaks = connection.recv(9)[3:4] == SETTINGS
    except (OSError, OverflowError) as error:
        reason = f"no answer within {ANSWER:g} s" if isinstance(error, TimeoutError) else str(error)
        raise ClusterDown(
            f"a Ray cluster must answer at {address!r}, but: {reason}; start it with `ray start "
            "--head`, or use --address local"
        ) from None
    if not speaks:
        raise ClusterDown(
            f"a Ray cluster must answer at {address!r}, but the server there is not Ray; "
            "`ray status` on the cluster's head prints its address"
        )
    try:
        bounded(lambda: ray._raylet.GcsClient(address=address), REPLY)
    except (ray.exceptions.RpcError, TimeoutError) as error:
        raise ClusterDown(
            f"a Ray cluster must answer at {address!r}, but the server there is not Ray: "
            f"{' '.join(str(error).split())[:200]}; `ray status` on the cluster's head prints its "
            "address"
        ) from None


def _explained(error: Exception, address: str) -> Exception:
    """Why Ray is not available, and a remedy; errors that already explain themselves are
    unchanged."""
    reason = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return error
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    logs = f"Ray's logs are in {folder}/ray/session_latest/logs"
    if any(words in reason for words in SLOW_START):
        return ConnectionError(f"Ray did not start in time; is this machine busy? {logs}")
    if address != "local":
        kind = ClusterError if isinstance(error, ConnectionError | ValueError) else ClusterDown
        return kind(f"a Ray cluster must answer at {address!r}, but: {reason}")
    if "AF_UNIX" in reason:
        return ClusterDown(
            f"Ray needs a folder with a short name for its sockets, but {folder} makes their names "
            "longer than a system allows; set RAY_TMPDIR to a short one, such as /tmp"
        )
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "allow more open files (`ulimit -n 4096`)"
    elif isinstance(error, OSError) and error.filename is not None:
        reason = f"{error.filename}: {error.strerror}"
        remedy = "set RAY_TMPDIR to a folder that you can write"
    else:
        remedy = logs
    return ClusterDown(f"Ray must start on this machine, but: {reason}; {remedy}")
