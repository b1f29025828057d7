"""A time limit for the answers of a PostgreSQL server, which its client alone lacks."""

import time
from collections.abc import Generator
from typing import Any

from sqlalchemy.engine import Dialect

SILENCE = 60.0
"""Seconds for which a server may say nothing in the middle of an answer; MySQL's bound, too."""
LOOK = 1.0
"""Seconds between two looks at the clock."""


def connection(dialect: Dialect, _: Any, words: Any, fields: Any) -> Any:
    """For SQLAlchemy's event `do_connect`: a bounded connection; None leaves it to the dialect."""
    return _connection(words, fields) if dialect.driver == "psycopg" else None


def _connection(words: Any, fields: Any) -> Any:
    import psycopg  # noqa: PLC0415, few stores are a PostgreSQL

    class Bounded(psycopg.Connection[Any]):
        """Closes itself after SILENCE, so that nobody waits for it a second time.

        A frozen server still answers for its sockets: the bounds of TCP do not see it.
        """

        def wait(self, gen: Any, *others: Any, **named: Any) -> Any:
            return super().wait(self._timed(gen), *others, **{"interval": LOOK, **named})

        def _timed(self, gen: Any) -> Generator[Any, Any, Any]:
            try:
                state = next(gen)
                heard = time.monotonic()
                while True:
                    ready = yield state
                    if ready:
                        heard = time.monotonic()
                    elif time.monotonic() - heard > SILENCE:
                        self.close()
                        raise psycopg.OperationalError(f"it has not answered for {SILENCE:g} s")
                    state = gen.send(ready)
            except StopIteration as end:
                return end.value

    return Bounded.connect(*words, **fields)
