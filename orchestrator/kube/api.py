"""The API server, through the official client: JSON in and out, every failure one line.

Two kinds of failure matter here: the server refuses (`Refused`), or it does not answer or cannot
at the moment (`ServerAway`), where asking again is right.

The client's dynamic half is used, not its typed one: importing `CoreV1Api` alone takes more CPU
than all the rest of `isoflop status`.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.dynamic import DynamicClient, Resource

from methods.errors import KubernetesError, ServerAway
from orchestrator.kube.names import GROUP, VERSION

Json = dict[str, Any]
ANSWER_SECONDS = 30.0
"""Seconds for an answer; a server under load takes some."""
TRIES = 5
"""Times that a reading is asked for."""
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the name of its namespace."""
PAUSE = 0.5
"""Seconds before the second time; they double."""


def _resource(
    kind: str,
    group: str = "",
    version: str = "v1",
    *,
    name: str | None = None,
    namespaced: bool = True,
) -> Any:
    return Resource(  # type: ignore[no-untyped-call]
        prefix="apis" if group else "api",
        group=group,
        api_version=version,
        kind=kind,
        namespaced=namespaced,
        name=name or f"{kind.lower()}s",
    )


RAY_JOBS = _resource("RayJob", GROUP, VERSION)
CONFIG_MAPS = _resource("ConfigMap")
PODS = _resource("Pod")
SECRETS = _resource("Secret")
CLAIMS = _resource("PersistentVolumeClaim")
NAMESPACES = _resource("Namespace", namespaced=False)
NETWORK_POLICIES = _resource("NetworkPolicy", "networking.k8s.io", name="networkpolicies")
RAY_CLUSTERS = _resource("RayCluster", GROUP, VERSION)
EVENTS = _resource("Event")
KUEUE, KUEUE_VERSIONS = "kueue.x-k8s.io", ("v1beta2", "v1beta1")
"""Kueue's API, as its newer and older versions serve it."""
QUEUES = [_resource("LocalQueue", KUEUE, version) for version in KUEUE_VERSIONS]
WORKLOADS = [_resource("Workload", KUEUE, version) for version in KUEUE_VERSIONS]


class Refused(KubernetesError):
    """The server says no, with this HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """One API server, as the user's kubeconfig names it.

    Every method raises Refused or ServerAway, as the server answers.

    Raises:
        KubernetesError: there is no kubeconfig, or it has no such context.
    """

    def __init__(self, context: str | None = None) -> None:
        settings = client.Configuration()
        load: Any = config  # its functions bear no types
        self.namespace: str | None = None
        """The namespace that the context names; inside a cluster, the pod's own."""
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
                load.load_incluster_config(client_configuration=settings)
                self.namespace = POD_NAMESPACE.read_text().strip() or None
            else:
                file = os.environ.get("KUBECONFIG")
                load.load_kube_config(file, context, client_configuration=settings)
                contexts, current = load.list_kube_config_contexts(file)
                chosen = next((each for each in contexts if each["name"] == context), current)
                self.namespace = chosen["context"].get("namespace")
        except (ConfigException, OSError) as error:
            raise KubernetesError(
                f"a kubeconfig must name a cluster, but: {_one_line(error)}; set KUBECONFIG, or "
                "name one of `kubectl config get-contexts` with --context"
            ) from None
        settings.retries = False  # who asks again is decided here
        self.host = str(settings.host)
        self._client: Any = DynamicClient(  # type: ignore[no-untyped-call]
            client.ApiClient(settings),
            discoverer=lambda *_: None,  # the resources above need no discovery
        )

    def find(self, resource: Any, namespace: str, name: str) -> Json | None:
        """One object, None where there is none; asked for again while the server is away."""
        return _unless_missing(self._patiently, "get", resource.path(name, namespace))

    def items(
        self, resource: Any, namespace: str, labels: str = "", fields: str = ""
    ) -> list[Json]:
        """The objects with these labels and fields, of every namespace where none is given; asked
        for again while the server is away."""
        selectors: Json = {"label_selector": labels or None, "field_selector": fields or None}
        answer = self._patiently("get", resource.path(None, namespace or None), **selectors)
        return list(answer.get("items") or [])

    def snapshot(self, resource: Any, namespace: str, name: str, seconds: float) -> Json:
        """A list of one object, with its resource version; asked for once, for so many seconds."""
        path, field = resource.path(None, namespace), f"metadata.name={name}"
        return self._once("get", path, field_selector=field, seconds=min(ANSWER_SECONDS, seconds))

    def served(self, group: str, version: str) -> set[str]:
        """The resources of an API group that the server knows; empty where it has no such group."""
        answer = _unless_missing(self._patiently, "get", f"/apis/{group}/{version}")
        return {resource["name"] for resource in (answer or {}).get("resources", [])}

    def create(self, resource: Any, body: Json, *, dry_run: bool = False) -> Json:
        """Create, once; unknown fields are refused. After ServerAway it may have been created."""
        path, mode = resource.path(None, body["metadata"]["namespace"]), "All" if dry_run else None
        query = [("fieldValidation", "Strict")]
        return self._once("post", path, body, dry_run=mode, query_params=query)

    def replace(self, resource: Any, body: Json) -> Json:
        """Replace the object of the same name and resource version, once."""
        path = resource.path(body["metadata"]["name"], body["metadata"]["namespace"])
        return self._once("put", path, body, query_params=[("fieldValidation", "Strict")])

    def patch(self, resource: Any, namespace: str, name: str, body: Json) -> Json:
        """Merge into what is there; asked for again while the server is away."""
        words = {"content_type": "application/merge-patch+json"}
        return self._patiently("patch", resource.path(name, namespace), body, **words)

    def delete(self, resource: Any, namespace: str, name: str, options: Json) -> bool:
        """Delete, asked for again while the server is away; False where there was no object."""
        path = resource.path(name, namespace)
        return _unless_missing(self._patiently, "delete", path, options) is not None

    def watch(
        self, resource: Any, namespace: str, name: str, version: str, seconds: float
    ) -> Iterator[Json]:
        """Events of one object after a resource version, for about so many seconds.

        Raises:
            Refused: with status 410 where the version is too old.
        """
        length = max(1, int(seconds))
        for line in self._lines(
            resource.path(None, namespace),
            length + 5,
            field_selector=f"metadata.name={name}",
            resource_version=version,
            watch=True,
            timeout_seconds=length,
            allow_watch_bookmarks=True,
        ):
            event = _parsed(line)
            if event["type"] == "ERROR":  # the client's Watch fails where it bears no reason
                status = event["object"]
                raise _failure(int(status.get("code", 500)), json.dumps(status), resource.name)
            yield event

    def log(self, namespace: str, pod: str, query: Mapping[str, str]) -> Iterator[str]:
        """The lines of a pod's log as they come; ends with it, or after 60 s without any."""
        path = f"{PODS.path(pod, namespace)}/log"
        yield from self._lines(path, 60, query_params=list(query.items()))

    def _patiently(self, method: str, path: str, body: Json | None = None, **words: Any) -> Json:
        for attempt in range(TRIES - 1):
            try:
                return self._once(method, path, body, **words)
            except ServerAway:
                time.sleep(PAUSE * 2**attempt)
        return self._once(method, path, body, **words)

    def _once(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        seconds: float = ANSWER_SECONDS,
        **words: Any,
    ) -> Json:
        words["_request_timeout"] = min(10.0, seconds), seconds  # to connect, and of silence
        with self._failures(path):
            answer = self._client.request(method, path, body, serializer=_as_it_is, **words)
        if not isinstance(answer, dict):
            raise ServerAway(f"the API server's answer was cut off after {len(answer)} characters")
        return answer

    def _lines(self, path: str, seconds: float, **words: Any) -> Iterator[str]:
        words["_request_timeout"] = min(10.0, seconds), seconds
        with self._failures(path):
            response = self._client.request("get", path, serialize=False, **words)
            try:
                for line in response:
                    text = line.decode(errors="replace").rstrip("\n")
                    if text:
                        yield text
            finally:
                response.close()
                response.release_conn()

    @contextlib.contextmanager
    def _failures(self, path: str) -> Iterator[None]:
        """A failure of the client as one of ours."""
        try:
            yield
        except ConfigException as error:
            raise KubernetesError(f"no credentials for {self.host}: {_one_line(error)}") from None
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(error, ApiException) and error.status:
                raise _failure(error.status, error.body or "", path) from None
            raise ServerAway(
                f"the API server {self.host} must answer, but: {_one_line(error)}"
            ) from None


def _unless_missing(request: Callable[..., Json], *place: Any) -> Json | None:
    try:
        return request(*place)
    except Refused as refusal:
        if refusal.status == 404:
            return None
        raise


def _as_it_is(_: object, content: Any) -> Any:
    return content


def _parsed(line: str) -> Json:
    try:
        return dict(json.loads(line))
    except ValueError:
        size = len(line)
        raise ServerAway(f"the API server's answer was cut off after {size} characters") from None


def _failure(status: int, text: str, path: str) -> KubernetesError:
    """The message of a Status object, in a line."""
    try:
        content = json.loads(text)
        message = str(content.get("message") or content.get("reason") or text)
    except (ValueError, AttributeError):
        message = text or "no reason given"
    message = " ".join(message.split())[:600]
    if status == 429 or status >= 500:
        return ServerAway(f"the API server cannot answer at the moment ({status}): {message}")
    if status == 401:
        rejected = f"the API server rejects your credentials (401): {message}; log in again"
        return Refused(rejected, status)
    if status == 403:
        return Refused(
            f"you lack the permission (403): {message}; the Role sweep-submitter of isoflop's "
            "Helm chart allows it",
            status,
        )
    name = path.rsplit("/", 1)[-1]
    return Refused(f"the API server refused {name} ({status}): {message}", status)


def _one_line(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(reason, Exception):
        return _one_line(reason)
    text = " ".join(str(reason if isinstance(error, ApiException) else error).split())
    return text.rsplit("object at 0x", 1)[-1].partition(">: ")[2] or text or type(error).__name__
