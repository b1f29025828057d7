"""Addresses: a password reaches the client whole, and reaches nothing else."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from methods.errors import StorageError
from orchestrator.record.address import Address, redact

WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), min_size=1, max_size=12)
OPEN = st.text("abcXYZ019@:!$&'()*+,;=~._-", min_size=4, max_size=12)
"""Passwords that a URL may hold as they are, and @ and : beside."""


@given(user=WORDS, password=WORDS)
def test_an_escaped_password_reaches_the_client(user: str, password: str) -> None:
    url = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@host:5432/name"
    client = make_url(Address(url).client)
    assert (client.username, client.password) == (user, password)
    assert (client.host, client.port, client.database) == ("host", 5432, "name")
    assert "connect_timeout" in client.query


@given(password=OPEN)
def test_a_password_as_it_is_reaches_the_client_and_no_text(password: str) -> None:
    url = f"postgresql://Ünal:{password}@host/name"
    address = Address(url)
    assert make_url(address.client).password == password
    shown = "postgresql://Ünal:***@host/name"
    assert str(address) == redact(url) == shown
    assert repr(address) == f"Address({shown!r})"
    assert address.redact(f"cannot use {url} with {password}") == f"cannot use {shown} with ***"
    assert address.page == "postgresql://host/name"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cr/et@host/name",
        "postgresql://ann:s3cr?et@host/name",
        "mysql://ann:12/et@host/name",
        "http://ann:s3cr#et@host:5000",
        "http://ann:s3cret@",
        "http://ann:s3cret@exa mple/",
        "http://ann:s3cret@host:port/",
        "https://ann:s3cret@host:70000/",
        "https://ann:s3cret@[::1",
        "ann:s3cret@host",
    ],
)
def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        Address(url)
    for part in ("s3cr", "et@", "12/"):
        assert part not in str(caught.value)


def test_passwords_in_a_query_are_hidden_and_limits_of_the_url_have_priority() -> None:
    address = Address("postgresql:///name?host=/run/pg&sslpassword=s3cret&connect_timeout=3")
    assert str(address).endswith("sslpassword=***&connect_timeout=3")
    assert make_url(address.client).query["connect_timeout"] == "3"
    assert "s3cret" not in address.redact("the pass phrase s3cret does not fit")


@pytest.mark.parametrize(
    "folder", ["plain", "sp ace", "50%off", "50%25", "what?", "a#b", "l\nne", "[x]*", "Ü,日本"]
)
def test_an_address_of_a_file_names_that_file(tmp_path: Path, folder: str) -> None:
    file = tmp_path / folder / "mlflow.db"
    assert Address.of_file(file).file == file
    assert make_url(Address.of_file(file).client).database == str(file)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("sqlite://", "path of a file"),
        ("sqlite:///", "path of a file"),
        ("sqlite:///:memory:", "path of a file"),
        ("sqlite:///file:x.db?uri=true&mode=ro", "path of a file"),
        ("sqlite:///x.db?timeout=soon", "a number of seconds"),
        ("sqlite:///x.db?mode=ro", r"\?timeout=SECONDS"),
        ("sqlite:///wh?t.db", "%3F"),
    ],
)
def test_what_names_no_file_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(StorageError, match=sentence):
        Address(url)
