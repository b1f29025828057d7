"""The API server, through the official client: JSON in and out, every failure one line.

Two kinds of failure matter here: what the server refuses (`Refused`), and a server that does not
answer or cannot at the moment (`ServerAway`), where asking again is right.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from methods.errors import KubernetesError, ServerAway
from orchestrator.kube.render import API_VERSION, GROUP

logger = logging.getLogger(__name__)

Json = dict[str, Any]
ANSWER = 30.0
"""Seconds for an answer; a server under load takes some."""
TRIES = 5
"""Times that a reading is asked for."""
PAUSE = 0.5
"""Seconds before the second time; they double."""
JOBS = f"/apis/{GROUP}/{API_VERSION}/namespaces/{{}}/rayjobs"
MAPS = "/api/v1/namespaces/{}/configmaps"
PODS = "/api/v1/namespaces/{}/pods"


class Refused(KubernetesError):
    """What the server says no to, with its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """One API server, as the user's kubeconfig names it.

    Raises:
        KubernetesError: there is no kubeconfig, or it has no such context.
    """

    def __init__(self, context: str | None = None) -> None:
        settings = client.Configuration()
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=settings
                )
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    os.environ.get("KUBECONFIG"), context, client_configuration=settings
                )
        except (ConfigException, OSError) as error:
            raise KubernetesError(
                f"a kubeconfig must name a cluster, but: {_one_line(error)}; set KUBECONFIG, or "
                "name one of `kubectl config get-contexts` with --context"
            ) from None
        settings.retries = False  # who asks again is decided here
        self.host = str(settings.host)
        self._client = client.ApiClient(settings)

    def get(self, path: str, **query: str) -> Json:
        """One reading, asked for again while the server is away.

        Raises:
            Refused, ServerAway: the answer.
        """
        return self._patiently("GET", path, query)

    def list_now(self, path: str, seconds: float, **query: str) -> Json:
        """A list with its resource version, asked for once and for so many seconds at most.

        Raises:
            Refused, ServerAway: the answer.
        """
        return self._json("GET", path, query, seconds=min(ANSWER, seconds))

    def find(self, path: str, **query: str) -> Json | None:
        """The same; None where there is no such object."""
        try:
            return self.get(path, **query)
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    def post(self, path: str, body: Json, **query: str) -> Json:
        """Create, once; unknown fields are refused.

        Raises:
            Refused, ServerAway: the answer; after the latter it may have been created.
        """
        return self._json("POST", path, {"fieldValidation": "Strict", **query}, body)

    def put(self, path: str, body: Json) -> Json:
        """Replace, once."""
        return self._json("PUT", path, {"fieldValidation": "Strict"}, body)

    def patch(self, path: str, body: Json) -> Json:
        """Merge into what is there; said again while the server is away."""
        return self._patiently("PATCH", path, {}, body)

    def delete(self, path: str, body: Json) -> bool:
        """Delete, said again while the server is away; False where nothing was there."""
        try:
            self._patiently("DELETE", path, {}, body)
        except Refused as refusal:
            if refusal.status == 404:
                return False
            raise
        return True

    def watch(self, path: str, version: str, seconds: float, **query: str) -> Iterator[Json]:
        """Events after a resource version, for about so many seconds.

        Raises:
            Refused, ServerAway: the answer; 410 where the version is too old.
        """
        length = max(1, int(seconds))
        words = {
            **query,
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(length),
            "allowWatchBookmarks": "true",
        }
        for line in self._lines(path, words, length + 5):
            event: Json = _parsed(line)
            if event["type"] == "ERROR":
                raise _failure(
                    int(event["object"].get("code", 500)), json.dumps(event["object"]), path
                )
            yield event

    def lines(self, path: str, query: Mapping[str, str], seconds: float = 60) -> Iterator[str]:
        """A text as it comes; ends with it, or after so many seconds without any.

        Raises:
            Refused, ServerAway: the answer, or a stream that broke off.
        """
        yield from self._lines(path, query, seconds)

    def _patiently(
        self, method: str, path: str, query: Mapping[str, str], body: Json | None = None
    ) -> Json:
        pause = PAUSE
        for left in reversed(range(TRIES)):
            try:
                return self._json(method, path, query, body)
            except ServerAway:
                if not left:
                    raise
                time.sleep(pause)
                pause *= 2
        raise AssertionError("unreachable")

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Json | None = None,
        seconds: float = ANSWER,
    ) -> Json:
        with _words(self.host):
            answer = self._call(method, path, query, body, seconds)
            text = answer.read().decode()
        if not 200 <= answer.status < 300:
            raise _failure(answer.status, text, path)
        found: Json = _parsed(text)
        return found

    def _lines(self, path: str, query: Mapping[str, str], seconds: float) -> Iterator[str]:
        with _words(self.host):
            answer = self._call("GET", path, query, None, seconds)
            if not 200 <= answer.status < 300:
                raise _failure(answer.status, answer.read().decode(), path)
        try:
            rest = b""
            with _words(self.host):
                for chunk in answer.response.stream(amt=None, decode_content=False):
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        if line:
                            yield line.decode(errors="replace")
            if rest:
                yield rest.decode(errors="replace")
        finally:
            answer.response.close()
            answer.response.release_conn()

    def _call(
        self, method: str, path: str, query: Mapping[str, str], body: Json | None, seconds: float
    ) -> Any:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        verb, url, headers, payload, fields = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*", "Content-Type": kind},
            body=body,
            auth_settings=["BearerToken"],
        )
        return self._client.call_api(
            verb, url, headers, payload, fields, _request_timeout=(min(10.0, seconds), seconds)
        )


class _words:  # noqa: N801
    """A connection's failure, as `ServerAway`."""

    def __init__(self, host: str) -> None:
        self._host = host

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ApiException | urllib3.exceptions.HTTPError | OSError):
            raise ServerAway(
                f"the API server {self._host} must answer, but: {_one_line(error)}"
            ) from None
        if isinstance(error, ConfigException):
            raise KubernetesError(f"no credentials for {self._host}: {_one_line(error)}") from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        raise ServerAway(f"the API server's answer was cut off after {len(text)} letters") from None


def _failure(status: int, text: str, path: str) -> KubernetesError:
    """What a Status object says, in a line."""
    try:
        said = json.loads(text)
        message = str(said.get("message") or said.get("reason") or text)
    except (ValueError, AttributeError):
        message = text or "no word of why"
    message = " ".join(message.split())[:600]
    if status == 429 or status >= 500:
        return ServerAway(f"the API server cannot answer at the moment ({status}): {message}")
    if status == 401:
        return Refused(f"the API server does not know you (401): {message}; log in again", status)
    if status == 403:
        return Refused(
            f"you may not do this (403): {message}; the Role sweep-submitter in k8s/base allows it",
            status,
        )
    return Refused(
        f"the API server refused {path.rsplit('/', 1)[-1]} ({status}): {message}", status
    )


def _one_line(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(error, ApiException) and reason:
        return " ".join(str(reason).split())
    if isinstance(reason, Exception):
        return _one_line(reason)
    text = " ".join(str(error).split())
    return text.rsplit("object at 0x", 1)[-1].partition(">: ")[2] or text or type(error).__name__
