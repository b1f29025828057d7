"""A PostgreSQL that a test starts and stops."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import below
from ports import free_port


class Postgres:
    """A PostgreSQL of this machine; it refuses to run as root, so root lends it to nobody."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="isoflop-postgres-"))
        self._as: list[str] = []
        if os.getuid() == 0:
            shutil.chown(self._folder, "nobody")
            self._as = ["setpriv", "--reuid=nobody", "--clear-groups"]
        self._run("initdb", "--username=isoflop", "--auth=trust", "--no-sync")
        self.port = free_port()
        self.url = f"postgresql://isoflop:hidden-word@127.0.0.1:{self.port}/postgres"

    def database(self, name: str) -> str:
        """The URL of a new database; Optuna's tables and MLflow's do not fit into one."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{self.url.removesuffix('/postgres')}/{name}"

    def start(self) -> None:
        where = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self._folder} -F"
        log = str(self._folder / "log")
        self._run("pg_ctl", "--wait", "--silent", f"--log={log}", f"--options={where}", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "--wait", "--silent", "--mode=immediate", "stop")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stand still: the system still answers for its sockets."""
        root = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        own = [root, *below(root, "postgres")]
        for process in own:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in own:
                os.kill(process, signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, command: str, *words: str) -> None:
        binary = _binary(command)
        command_line = [*self._as, binary, "--pgdata", str(self._folder / "data"), *words]
        done = subprocess.run(
            command_line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, cwd="/tmp"
        )
        assert done.returncode == 0, done.stderr


def _binary(name: str) -> str:
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    binary = shutil.which(name) or (str(places[-1]) if places else None)
    if binary is None:
        pytest.skip("no PostgreSQL here; `apt-get install postgresql` brings one")
    return binary
