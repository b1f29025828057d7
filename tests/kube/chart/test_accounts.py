"""MLflow with passwords, started as the chart states, with accounts that its Jobs create."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from deployed import environment, mlflow, spec_of, status, words
from manifests import ROOT
from postgres import Postgres

from orchestrator.store.reading.failures import REFUSALS

ADMIN, WORD = "admin", "an-admins-password"
PASSWORDS = {"team-a": "password-of-team-a", "team-b": 'it\'s "b" 100%'}
API = "/api/2.0/mlflow/experiments/search?max_results=1"
MAIN = "from orchestrator.cli import main; main()"
STUDY = """
name: shared-name
data: digits
budgets: [1]
recipe: {epochs: 1, batch_size: 64}
methods: {dense: {depth: 8, width: {choices: [0.25]}}}
search: {trials: 1}
confirm: {seeds: 1}
"""


@pytest.fixture
def database() -> Iterator[str]:
    """The URI of MLflow's database in a PostgreSQL that asks for passwords."""
    import psycopg

    server = Postgres()
    server.start()
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER ROLE isoflop PASSWORD 'hidden-word'")
            connection.execute("CREATE DATABASE mlflow")
            row = connection.execute("SHOW hba_file").fetchone()
            assert row is not None
            Path(row[0]).write_text("host all all 127.0.0.1/32 scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")
        yield server.url.replace("/postgres", "/mlflow")
    finally:
        server.close()


def run(command: list[str], variables: Mapping[str, str], **more: str) -> str:
    """What a command prints; it ends with 0."""
    done = subprocess.run(
        command,
        env={**variables, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def isoflop(*command: str, team: str = "", **more: str) -> tuple[int, str]:
    """The exit code and the output of a command, by a team's user or by nobody."""
    login = {"MLFLOW_TRACKING_USERNAME": team, "MLFLOW_TRACKING_PASSWORD": PASSWORDS.get(team, "")}
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *command],
        env={**os.environ, **(login if team else {}), **more},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_team_has_its_own_studies_and_its_own_database(tmp_path: Path, database: str) -> None:
    """Two teams share a server with passwords; neither reads or writes what is the other's."""
    import psycopg

    secrets = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": WORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-random-text",
    }
    upgrade = spec_of("team", "Deployment", "mlflow")["initContainers"][0]
    run(words(upgrade, {}), environment(upgrade, secrets, tmp_path))
    with mlflow("team", secrets, tmp_path) as port:
        uri = f"http://127.0.0.1:{port}"
        for name, team in {"team": "team-a", "second": "team-b"}.items():
            account = spec_of(name, "Job", "team-")["containers"][0]
            values = {
                "PASSWORD": PASSWORDS[team],
                "DATABASE": database,
                "MLFLOW": uri,
                "MLFLOW_TRACKING_USERNAME": ADMIN,
                "MLFLOW_TRACKING_PASSWORD": WORD,
            }
            variables = environment(account, values, tmp_path)
            assert variables["TEAM"] == team
            for password in ("another-password-before", PASSWORDS[team])[name == "second" :]:
                printed = run(words(account, {}), variables, PASSWORD=password)
                assert "not yet" not in printed
        assert status(port, API, "localhost") == 401

        file, mine, theirs = tmp_path / "study.yaml", tmp_path / "a", tmp_path / "b"
        file.write_text(STUDY)
        optuna = own_database(database, "team-a", "team-a")
        study = ("run", str(file), "--mlflow", uri)
        code, text = isoflop(*study, "--out", str(mine), "--optuna", optuna, team="team-a")
        assert code == 0, text
        for command in ("board", "verify"):
            reading = (command, "shared-name", "--out", str(theirs), "--mlflow", uri)
            code, text = isoflop(*reading, team="team-a")
            assert code == 0, text
            refused(REFUSALS["403"], *isoflop(*reading, team="team-b"))
            refused(REFUSALS["401"], *isoflop(*reading))
        refused(REFUSALS["403"], *isoflop(*study, "--out", str(theirs), team="team-b"))
        refused(REFUSALS["401"], *isoflop(*study, "--out", str(theirs)))

    psycopg.connect(own_database(database, "team-b", "team-b")).close()
    for name in ("mlflow", "optuna-team-a"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(own_database(database, "team-b", name))
    wrong = database.replace("hidden-word", "another-word")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def refused(sentence: str, code: int, text: str) -> None:
    """One sentence, and exit code 2."""
    assert code == 2, text
    assert sentence in " ".join(text.split()), text
    assert "Traceback" not in text


def own_database(database: str, team: str, name: str) -> str:
    """The URI of a database by a team's role, as Secret isoflop-optuna has it."""
    login = f"optuna-{team}:{quote(PASSWORDS[team], safe='')}"
    place = name if name == "mlflow" else f"optuna-{name.removeprefix('optuna-')}"
    return database.replace("isoflop:hidden-word", login).replace("/mlflow", f"/{place}")
