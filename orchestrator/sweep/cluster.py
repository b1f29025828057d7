"""Ray: what it is told at start, what a worker finds in its environment, what fits."""

import contextlib
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

from methods.errors import ClusterError
from orchestrator.study.check import cores, slots, slots_here
from orchestrator.study.file import Resources
from orchestrator.sweep import signals

logger = logging.getLogger(__name__)

for _name in ("ray.tune.tune", "ray.tune.execution.tune_controller"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # trials that failed stand in the ledger

SLOW_START = "timed out during startup"
"""What Ray says, in an exception of no class of its own, where its parts take longer than 30 s."""
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # a spinning barrier makes shared cores 10 times slower
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output has no quiet level
    "RAY_memory_monitor_refresh_ms": "0",  # its kills would end the sweep, not the trial
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the ledger says why, in a line
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the ledger is the state
    "TUNE_WARN_THRESHOLD_S": "60",
    # Short epochs are told together: each message takes time of the driver's, and the worker waits.
    "TUNE_RESULT_BUFFER_LENGTH": "1000",
    "TUNE_RESULT_BUFFER_MIN_TIME_S": "1",
    "TUNE_RESULT_BUFFER_MAX_TIME_S": "1",
}


def preflight(resources: Resources, address: str, at_once: int | None = None) -> None:
    """Refuse what this machine or the cluster cannot hold, before anything is written.

    Raises:
        ClusterError: no cluster at the address, or a trial needs more than its largest node has.
    """
    if address == "local":
        slots_here(resources)
    else:
        with started(resources, address, at_once):
            pass


@contextlib.contextmanager
def started(resources: Resources, address: str, at_once: int | None = None) -> Iterator[int]:
    """A running Ray, and how many trials at once it holds; `at_once` where nodes come and go.

    Raises:
        ClusterError: no cluster at the address, or no node that holds one trial.
        ConnectionError: Ray did not start in time.
    """
    _reachable(address)
    if ray.is_initialized():
        raise ClusterError(
            "a sweep starts a Ray of its own, but this process is connected to one already; "
            "`ray.shutdown()` disconnects it"
        )
    if address == "local":
        logger.info("Starting Ray on this machine")
    else:
        logger.info("Connecting to Ray at %s", address)
    threads = {"OMP_NUM_THREADS": str(max(1, int(resources.cpu)))}
    os.environ.update(ENVIRONMENT | threads)
    if address == "local":
        os.environ["RAY_AUTH_MODE"] = "disabled"
    on_stop = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        ray.init(
            address=address,
            num_cpus=cores() if address == "local" else None,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=None if address == "local" else {"env_vars": ENVIRONMENT | threads},
            job_config=_Job(),
        )
    except (ConnectionError, ValueError) as error:
        raise ClusterError(f"no Ray cluster answers at {address!r}: {error}") from None
    except Exception as error:
        if SLOW_START not in str(error):
            raise
        ray.shutdown()
        raise ConnectionError("Ray did not start in time; is this machine busy?") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_stop)  # Ray sets one of its own
    ray._private.worker._worker_logs_enabled = False  # raylets' dumps; what matters is told by us
    hurried = False
    try:
        nodes = [
            (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()
            if node["Alive"]
        ]
        yield at_once or slots(resources, nodes)
    except signals.Terminated:
        hurried = address != "local"  # a cluster that stands by itself sees us go
        raise
    finally:
        if not hurried:
            ray.shutdown()


class _Job(JobConfig):  # type: ignore[misc]
    """A job whose workers look for modules in the same places as its driver.

    Ray puts the working folder before all of them, where a file `methods.py` of the user's would
    stand in for the package that every trial imports.
    """

    def __init__(self) -> None:
        super().__init__(_py_driver_sys_path=driver_path()[::-1])  # a worker prepends one by one

    def _runtime_env_has_working_dir(self) -> bool:
        """Tells Ray to add no folder itself."""
        return True


def driver_path() -> list[str]:
    """Where this process looks for modules before the standard library, first to last."""
    library = sysconfig.get_path("stdlib")
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    before = itertools.takewhile(
        lambda entry: entry != library and Path(entry).name != archive, sys.path
    )
    return [str(Path(entry).absolute()) for entry in before]


def _reachable(address: str) -> None:
    """Ask the port before Ray does, which would go on asking for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ClusterError(
            f"a Ray cluster must answer at {address!r}, but: {error}; start it, or use 'local'"
        ) from None
