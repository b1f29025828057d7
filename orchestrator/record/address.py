"""Addresses of stores and databases: URLs whose passwords no text of ours may show.

And the wait for what answers there, or never does: its server may be frozen.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlencode

from methods.errors import StorageError

T = TypeVar("T")
HIDDEN = "***"
"""What stands for a password."""
SECRET = r"pass(?:word|wd|phrase)?|pwd|secret|token|key"
"""Names of a query's fields whose values are never shown, as a pattern."""
SHORT = 4
"""Characters of a password that is hidden only where a URL has it: alone it could be any word."""
SQLITE = ("sqlite", "sqlite+pysqlite")
"""Schemes of a database that is a file."""
SQLITE_OPTIONS = {"timeout"}
"""What may follow an SQLite file behind a question mark: seconds to wait while it is locked."""
_POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_MYSQL = {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60}
LIMITS: Mapping[str, Mapping[str, int]] = {
    **dict.fromkeys(("postgresql", "postgresql+psycopg", "postgresql+psycopg2"), _POSTGRESQL),
    **dict.fromkeys(("mysql", "mysql+pymysql", "mysql+mysqldb"), _MYSQL),
}
"""Options, by scheme, that bound how long a client waits for its server."""
_IN_URLS = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://[^\s:/?#@]*):\S*@", re.IGNORECASE)
_IN_QUERIES = re.compile(rf"(?P<name>[?&;]\w*(?:{SECRET})\w*)=[^&\s'\"]+", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """A URL as it was given; `repr` and `str` hide its password.

    Raises:
        StorageError: it is no URL, names no file, or does not tell where its password ends.
    """

    url: str

    def __post_init__(self) -> None:
        if not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", self.url):
            raise StorageError(
                "the address of a database or a server must be a URL such as "
                "postgresql://user:password@host/name, but the one given is none"
            )
        if self.is_file:
            self._check_file()
        elif self._is_ambiguous():
            raise StorageError(
                f"the address {redact(self.url)} must have its password's / as %2F, ? as %3F and "
                "# as %23, so that its end is clear"
            )
        elif not self._names_host():
            raise StorageError(
                "an address must be scheme://host:port/..., with a port from 1 to 65535, but got "
                f"{str(self)!r}"
            )

    def __str__(self) -> str:
        """The URL with *** for its password."""
        head, userinfo, rest = self._parts
        user, colon, _ = userinfo.partition(":")
        shown = f"{user}{f':{HIDDEN}' if colon else ''}@" if userinfo else ""
        return f"{head}{shown}{_IN_QUERIES.sub(_hidden_field, rest)}"

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    @staticmethod
    def of_file(file: Path) -> "Address":
        """The address of an SQLite file."""
        path = str(file.absolute()).replace("%", "%25").replace("?", "%3F")
        return Address(f"sqlite:///{path}")

    @property
    def scheme(self) -> str:
        """What stands before `://`, in small letters."""
        return self.url.partition("://")[0].lower()

    @property
    def is_server(self) -> bool:
        """Whether it names an MLflow server."""
        return self.scheme in {"http", "https"}

    @property
    def is_file(self) -> bool:
        """Whether it names an SQLite file."""
        return self.scheme in SQLITE

    @property
    def is_database(self) -> bool:
        """Whether it names a database that has a server."""
        return not self.is_file and not self.is_server

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The options behind the question mark."""
        return dict(parse_qsl(self.url.partition("?")[2], keep_blank_values=True))

    @property
    def file(self) -> Path:
        """The SQLite file."""
        path = self.url.partition("?")[0].partition("://")[2].removeprefix("/")
        return Path(unquote(path)).absolute()

    @property
    def client(self) -> str:
        """The URL for a client: its password escaped, and its waits for a server bounded."""
        head, userinfo, rest = self._parts
        if userinfo:
            user, colon, password = userinfo.partition(":")
            userinfo = f"{_escaped(user)}{colon}{_escaped(password)}@"
        limits = LIMITS.get(self.scheme, {})
        added = {name: value for name, value in limits.items() if name not in self.query}
        if added:
            rest = f"{rest}{'&' if '?' in rest else '?'}{urlencode(added)}"
        return f"{head}{userinfo}{rest}"

    @property
    def page(self) -> str:
        """The URL for a browser: without user and password."""
        head, _, rest = self._parts
        return f"{head}{rest.partition('?')[0]}".rstrip("/")

    def redact(self, text: str) -> str:
        """A text without this address's password, in whatever form a library repeats it."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return redact(text)

    def _secrets(self) -> set[str]:
        """The passwords as they were given, as they are, and as a URL has them."""
        query = [field.partition("=") for field in self.url.partition("?")[2].split("&")]
        given = {value for name, _, value in query if re.search(SECRET, name, re.IGNORECASE)}
        given.add(self._parts[1].partition(":")[2])
        forms = {form for each in given for form in (each, unquote(each), unquote_plus(each))}
        forms |= {_escaped(form) for form in forms}
        return {form for form in forms if len(form) >= SHORT}

    @cached_property
    def _parts(self) -> tuple[str, str, str]:
        """The scheme with its `://`, the user and password before the last `@`, and the rest."""
        scheme, _, rest = self.url.partition("://")
        userinfo, at, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
        return f"{scheme}://", userinfo, rest[len(userinfo) + len(at) :]

    def _is_ambiguous(self) -> bool:
        """Whether the password may hold a character that ends a URL's host."""
        _, userinfo, rest = self._parts
        host = re.split(r"[/?#]", rest, maxsplit=1)[0]
        _, colon, port = host.rpartition("]")[2].rpartition(":")
        if userinfo or not colon:
            return False
        if port.isdigit():
            return self.is_database and "@" in rest.partition("?")[0]
        return "@" in rest

    def _names_host(self) -> bool:
        """Whether host and port are such; a database's may be absent, for a local socket."""
        rest = self._parts[2]
        place = re.split(r"[/?#]", rest, maxsplit=1)[0]
        match = re.fullmatch(r"(\[[0-9a-fA-F:.%]+\]|[^\s:\[\]]*)(?::(\d*))?", place)
        if match is None or (self.is_server and not match[1]):
            return False
        return not match[2] or 0 < int(match[2]) < 65536

    def _check_file(self) -> None:
        path = self.url.partition("?")[0].partition("://")[2]
        if not path.startswith("/") or path in {"/", "/:memory:"} or path.startswith("/file:"):
            raise StorageError(
                f"sqlite:/// must be followed by the path of a file, but got {str(self)!r}"
            )
        if others := self.query.keys() - SQLITE_OPTIONS:
            raise StorageError(
                f"an SQLite file may be followed by ?timeout=SECONDS, but {self} has "
                f"{', '.join(sorted(others))}; a ? in a file's name is written %3F"
            )
        if not re.fullmatch(r"\d+(\.\d*)?", self.query.get("timeout", "0")):
            raise StorageError(f"timeout must be a number of seconds, but got {str(self)!r}")
        if {"%", "?"} & set(self.file.name):
            raise StorageError(
                f"the name of an SQLite file must be without % and ?, but is {self.file.name!r}"
            )


def redact(text: str) -> str:
    """A text without the passwords of the URLs in it.

    >>> redact("cannot reach postgresql://ann:p@ss@host/optuna?sslpassword=x")
    'cannot reach postgresql://ann:***@host/optuna?sslpassword=***'
    """
    return _IN_QUERIES.sub(_hidden_field, _IN_URLS.sub(rf"\g<scheme>:{HIDDEN}@", text))


def bounded(
    call: Callable[[], T],
    seconds: float,
    *,
    every: float = float("inf"),
    still_waiting: Callable[[float], None] | None = None,
) -> T:
    """What a function returns, if it does so in time; its thread is left behind if not.

    `still_waiting` is called `every` so many seconds, with the seconds that have passed.

    Raises:
        TimeoutError: it did not return within `seconds`.
        Exception: the function's own.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="bounded", daemon=True)
    start = time.monotonic()
    thread.start()
    while thread.is_alive():
        waited = time.monotonic() - start
        if waited >= seconds:
            raise TimeoutError(f"no answer within {seconds:g} s")
        thread.join(min(every, seconds - waited))
        waited = time.monotonic() - start
        if still_waiting is not None and thread.is_alive() and every <= waited < seconds:
            still_waiting(waited)
    if errors:
        raise errors[0]
    return results[0]


def _hidden_field(match: re.Match[str]) -> str:
    return f"{match['name']}={HIDDEN}"


def _escaped(part: str) -> str:
    return quote(unquote(part), safe="")
