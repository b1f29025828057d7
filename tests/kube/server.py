"""A small API server over HTTPS: the paths that a sweep needs, as Kubernetes answers them, and
faults on demand. KubeRay's operator is the test itself, which writes a RayJob's status."""

import contextlib
import datetime
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from handler import Handler, Http, Json
from tls import certificate, kubeconfig

JOBS = "/apis/ray.io/v1/namespaces/isoflop/rayjobs"
MAPS = "/api/v1/namespaces/isoflop/configmaps"
PODS = "/api/v1/namespaces/isoflop/pods"


@dataclass
class Fault:
    """What becomes of the next requests that fit."""

    method: str
    path: str
    """A regular expression over path and query."""
    does: str
    """A status (`503`), or `drop` (no answer), `lost` (done, but no answer), `slow`, `half`."""
    times: int = 1
    hits: int = 0
    """How many requests it hit so far."""


@dataclass
class Store:
    """Objects by path, their history, and the oldest version that can still be watched."""

    objects: dict[str, Json] = field(default_factory=dict)
    events: list[tuple[int, str, str, Json]] = field(default_factory=list)
    version: int = 100
    oldest: int = 0


class Server:
    """`with Server(folder) as server`: the server runs, `server.kubeconfig` names it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self.changed = threading.Condition()
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.logs: dict[str, list[str]] = {}
        self.unfinished = False
        """Whether the last line of a log has no end yet."""
        self.stopping = 0.0
        """Seconds that a deleted RayJob's finalizer takes."""
        self.collecting = 0.0
        """Seconds until what a deleted object owns is deleted, too."""
        self.on: dict[str, Callable[[], None]] = {}
        """Called after a request whose `METHOD path` is the key."""
        self.known: Callable[[Json], list[str]] = lambda body: []
        """Unknown fields of a body, for strict validation."""
        self.closing = False
        chain = certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        handler = type("Bound", (Handler,), {"server_": self})
        self._http = Http(("127.0.0.1", 0), handler)
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.host = f"https://127.0.0.1:{self._http.server_address[1]}"
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(kubeconfig(self.host, chain)))
        self.put("/apis/ray.io/v1", {"resources": [{"name": "rayjobs"}, {"name": "rayclusters"}]})
        self.put("/api/v1/namespaces/isoflop", {"status": {"phase": "Active"}})
        for name in ("isoflop-mlflow", "isoflop-optuna"):
            self.put(f"/api/v1/namespaces/isoflop/secrets/{name}", {"data": {"uri": "eA=="}})
        self.claim("isoflop-runs", "ReadWriteMany")

    def __enter__(self) -> "Server":
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *what: object) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def put(self, path: str, body: Json) -> Json:
        """An object, as if someone had made or changed it."""
        with self.changed:
            old = self.store.objects.get(path)
            self.store.version += 1
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            born = {"uid": str(uuid.uuid4()), "creationTimestamp": now}
            metadata = {
                **born,
                **((old or {}).get("metadata") or {}),
                "name": path.rsplit("/", 1)[-1],
                **({"namespace": path.split("/")[-3]} if "/namespaces/" in path else {}),
                **body.get("metadata", {}),
                "resourceVersion": str(self.store.version),
            }
            self.store.objects[path] = {**body, "metadata": metadata}
            self._event("MODIFIED" if old else "ADDED", path)
        return self.store.objects[path]

    def take(self, path: str) -> None:
        """Delete an object and what it owns."""
        with self.changed:
            gone = self.store.objects.pop(path, None)
            if gone is None:
                return
            self.store.version += 1
            gone["metadata"]["resourceVersion"] = str(self.store.version)
            self.store.events.append((self.store.version, "DELETED", path, gone))
            self.changed.notify_all()
            uid = gone["metadata"]["uid"]
            owned = [
                other
                for other, body in self.store.objects.items()
                if uid in [o["uid"] for o in body["metadata"].get("ownerReferences") or []]
            ]
            for other in owned:
                if self.collecting:
                    threading.Timer(self.collecting, self.take, (other,)).start()
                else:
                    self.take(other)

    def claim(self, name: str, *modes: str) -> None:
        """A PersistentVolumeClaim."""
        path = f"/api/v1/namespaces/isoflop/persistentvolumeclaims/{name}"
        self.put(path, {"spec": {"accessModes": list(modes)}, "status": {"phase": "Bound"}})

    def status(self, name: str, **status: Any) -> None:
        """What KubeRay's operator writes."""
        path = f"{JOBS}/{name}"
        job = self.store.objects[path]
        self.put(path, {**job, "status": {**(job.get("status") or {}), **status}})

    def pod(self, name: str, cluster: str, kind: str = "head", **status: Any) -> None:
        """A pod of a RayCluster."""
        labels = {"ray.io/cluster": cluster, "ray.io/node-type": kind}
        self.put(f"{PODS}/{name}", {"metadata": {"labels": labels}, "status": status})

    def event(self, name: str, reason: str, message: str, kind: str = "Warning") -> None:
        """What a controller says of an object."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = PODS.replace("/pods", "/events/") + f"{name}.{len(self.store.events)}"
        body = {"reason": reason, "message": message, "type": kind, "lastTimestamp": now}
        self.put(path, {**body, "involvedObject": {"name": name}})

    def operator(self, namespace: str) -> None:
        """KubeRay's operator, as its chart installs it."""
        labels = {"app.kubernetes.io/component": "kuberay-operator"}
        self.put(f"/api/v1/namespaces/{namespace}/pods/operator", {"metadata": {"labels": labels}})
        self.put(f"/api/v1/namespaces/{namespace}", {"status": {"phase": "Active"}})

    def forget(self) -> None:
        """Compact the history: watches from before are answered with 410."""
        with self.changed:
            self.store.version += 1
            self.store.oldest = self.store.version

    def fail(self, method: str, path: str, does: str, times: int = 1) -> Fault:
        """A fault to come."""
        fault = Fault(method, path, does, times)
        self.faults.append(fault)
        return fault

    def names(self, path: str) -> list[str]:
        """The objects of a collection."""
        return sorted(p.rsplit("/", 1)[-1] for p in self.store.objects if p.startswith(f"{path}/"))

    def until(self, what: Callable[[], bool], timeout: float = 30) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + timeout
        while not what():
            assert time.monotonic() < deadline, self.requests
            time.sleep(0.01)

    def asked(self, words: str) -> int:
        """How many requests held these words."""
        return sum(words in request for request in self.requests)

    def _event(self, kind: str, path: str) -> None:
        self.store.events.append((self.store.version, kind, path, self.store.objects[path]))
        self.changed.notify_all()


@contextlib.contextmanager
def running(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Something in a separate thread, joined at the end."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
