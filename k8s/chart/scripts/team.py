"""A team's account: a user of MLflow, and a role of PostgreSQL with a database for Optuna.

The chart's Job runs this, and can run it again. What it makes bears the name of the team's
namespace, and has the password in Secret team-NAMESPACE.
"""

import os
import time
from collections.abc import Callable

PATIENCE = 900
"""Seconds in which MLflow and PostgreSQL must have started."""


def database(uri: str, name: str, password: str) -> None:
    """A role that may do nothing but connect to a database of its own."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, isolation_level="AUTOCOMMIT", hide_parameters=True)
    with engine.connect() as connection:

        def run(command: str) -> None:
            """A command, its names and texts quoted by the server."""
            quoted = sqlalchemy.text(
                f"SELECT format('{command}', CAST(:name AS text), CAST(:password AS text))"
            )
            words = {"name": name, "password": password}
            ready = connection.execute(quoted, words).scalar()
            with connection.connection.cursor() as cursor:  # a % in it has no meaning
                cursor.execute(ready)

        def missing(table: str, column: str) -> bool:
            query = sqlalchemy.text(f"SELECT 1 FROM {table} WHERE {column} = :name")
            return connection.execute(query, {"name": name}).first() is None

        if missing("pg_roles", "rolname"):
            run("CREATE ROLE %1$I")
        run("ALTER ROLE %1$I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD %2$L")
        if missing("pg_database", "datname"):
            run("CREATE DATABASE %1$I OWNER %1$I")
        run("REVOKE ALL ON DATABASE %1$I FROM PUBLIC")
        run("REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC")
    engine.dispose()


def user(server: str, name: str, password: str) -> None:
    """A user who is no administrator; MLflow's client has the administrator's password."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.client import AuthServiceClient

    client = AuthServiceClient(server)
    try:
        client.create_user(name, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_user_admin(name, False)
        client.update_user_password(name, password)


def once_it_answers(make: Callable[..., None], *words: str) -> None:
    """What `make` does, once the server behind it has started."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            make(*words)
        except Exception as error:
            if time.monotonic() > deadline:
                raise
            print(f"not yet: {' '.join(str(error).split())[:200]}", flush=True)
            time.sleep(5)
        else:
            return


if __name__ == "__main__":
    team, word = os.environ["TEAM"], os.environ["PASSWORD"]
    if "DATABASE" in os.environ:
        once_it_answers(database, os.environ["DATABASE"], f"optuna-{team}", word)
    if "MLFLOW" in os.environ:
        once_it_answers(user, os.environ["MLFLOW"], team, word)
