"""A small API server over HTTPS: the paths that a sweep needs, as Kubernetes answers them, and
faults on demand. KubeRay's operator is the test itself, which writes a RayJob's status."""

import base64
import contextlib
import datetime
import ipaddress
import json
import re
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Json = dict[str, Any]
TOKEN = "of-the-test"
JOBS = "/apis/ray.io/v1/namespaces/isoflop/rayjobs"
MAPS = "/api/v1/namespaces/isoflop/configmaps"
PODS = "/api/v1/namespaces/isoflop/pods"
COLLECTION = re.compile(r"^(/api/v1|/apis/[^/]+/[^/]+)/namespaces/([^/]+)/([^/]+)$")


@dataclass
class Fault:
    """What becomes of the next requests that fit."""

    method: str
    path: str
    """A regular expression over path and query."""
    does: str
    """A status (`503`), or `drop` (no answer), `lost` (done, but no answer), `slow`, `half`."""
    times: int = 1
    seen: int = 0


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
        self.stopping = 0.0
        """Seconds that a deleted RayJob's finalizer takes."""
        self.on: dict[str, Callable[[], None]] = {}
        """Called after a request whose `METHOD path` is the key."""
        self.known: Callable[[Json], list[str]] = lambda body: []
        """Unknown fields of a body, for strict validation."""
        self.closing = False
        certificate = _certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        handler = type("Bound", (_Handler,), {"server_": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.host = f"https://127.0.0.1:{self._http.server_address[1]}"
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.host, certificate)))
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


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server_: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def log_message(self, *words: Any) -> None:
        """Silence."""

    def _answer(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        server = self.server_
        server.requests.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._status(401, "Unauthorized")
            return
        fault = self._fault()
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if fault == "slow":
            time.sleep(1.5)
        if fault.isdigit():
            self._status(int(fault), "a fault of the test")
            return
        if query.get("watch") == "true":
            self._watch(url.path, query, fault)
            return
        if url.path.endswith("/log"):
            self._log(url.path, query, fault)
            return
        code, answer = self._done(url.path, query, body)
        then = server.on.get(f"{self.command} {url.path}")
        if then:
            then()
        if fault == "lost":
            self.close_connection = True
            self.connection.close()
            return
        self._send(code, answer, cut=fault == "half")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

    def _fault(self) -> str:
        for fault in self.server_.faults:
            fits = fault.method == self.command and re.search(fault.path, self.path)
            if fits and fault.seen < fault.times:
                fault.seen += 1
                return fault.does
        return ""

    def _done(self, path: str, query: Json, body: Any) -> tuple[int, Json]:
        server = self.server_
        objects = server.store.objects
        with server.changed:
            found = objects.get(path)
            if self.command == "POST":
                return self._create(path, query, body)
            if self.command == "GET" and found is not None:
                return 200, found
            if self.command == "GET" and COLLECTION.match(path):
                items = [objects[p] for p in sorted(objects) if _in(p, path, objects[p], query)]
                version = str(server.store.version)
                return 200, {"metadata": {"resourceVersion": version}, "items": items}
            if found is None:
                return _refusal(404, f"{path} not found")
            return self._changed(path, found, body or {})

    def _changed(self, path: str, found: Json, body: Json) -> tuple[int, Json]:
        if self.command == "DELETE":
            return self._delete(path, found, body)
        if self.command == "PATCH":
            return 200, self.server_.put(path, _merged(found, body))
        if body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            return _refusal(409, "the object has been modified")
        return 200, self.server_.put(path, body)

    def _create(self, path: str, query: Json, body: Json) -> tuple[int, Json]:
        server = self.server_
        own = f"{path}/{body['metadata']['name']}"
        unknown = server.known(body)
        if unknown and query.get("fieldValidation") == "Strict":
            return _refusal(400, f'strict decoding error: unknown field "{unknown[0]}"')
        if query.get("dryRun") == "All":
            return 201, body
        if own in server.store.objects:
            return _refusal(409, f"{own} already exists")
        return 201, server.put(own, body)

    def _delete(self, path: str, found: Json, options: Json) -> tuple[int, Json]:
        server = self.server_
        for key, value in (options.get("preconditions") or {}).items():
            if found["metadata"].get(key) != value:
                return _refusal(409, f"the precondition {key} does not hold")
        if server.stopping and "/rayjobs/" in path:
            server.put(path, _merged(found, {"metadata": {"deletionTimestamp": "now"}}))
            threading.Timer(server.stopping, server.take, (path,)).start()
        else:
            server.take(path)
        return 200, {"status": "Success"}

    def _watch(self, path: str, query: Json, fault: str) -> None:
        server = self.server_
        version = int(query["resourceVersion"])
        deadline = time.monotonic() + float(query["timeoutSeconds"])
        if version < server.store.oldest:
            self._begin()
            told = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            self._chunk(json.dumps({"type": "ERROR", "object": told}) + "\n")
            self._chunk("")
            return
        self._begin()
        while True:
            with server.changed:
                news = [
                    event
                    for event in server.store.events
                    if event[0] > version and _in(event[2], path, event[3], query)
                ]
                if not news:
                    left = deadline - time.monotonic()
                    if left <= 0 or server.closing:
                        break
                    server.changed.wait(left)
                    continue
            for number, kind, _, body in news:
                line = json.dumps({"type": kind, "object": body}) + "\n"
                if fault == "half":
                    self._chunk(line[: len(line) // 2])
                    self.close_connection = True
                    self.connection.close()
                    return
                self._chunk(line)
                version = number
        self._chunk("")

    def _log(self, path: str, query: Json, fault: str) -> None:
        server = self.server_
        if path.removesuffix("/log") not in server.store.objects:
            self._status(404, "no such pod")
            return
        pod = path.split("/")[-2]
        told = 0
        self._begin()
        while True:
            with server.changed:
                lines = server.logs.get(pod, [])
                if "tailLines" in query:
                    told = max(told, len(lines) - int(query["tailLines"]))
                here = path.removesuffix("/log") in server.store.objects
            for line in lines[told:]:
                self._chunk(f"{line}\n")
                told += 1
                if fault == "half" and told == 2:
                    self.close_connection = True
                    self.connection.close()
                    return
            if query.get("follow") != "true" or not here or server.closing:
                break
            time.sleep(0.02)
        self._chunk("")

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _status(self, code: int, message: str) -> None:
        self._send(*_refusal(code, message))

    def _send(self, code: int, body: Json, *, cut: bool = False) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True


def _refusal(code: int, message: str) -> tuple[int, Json]:
    return code, {"kind": "Status", "status": "Failure", "code": code, "message": message}


def _in(path: str, collection: str, body: Json, query: Json) -> bool:
    """Whether an object is of a collection and fits the selectors."""
    if path.rsplit("/", 1)[0] != collection:
        return False
    metadata = body["metadata"]
    wanted = query.get("fieldSelector", "")
    if wanted and wanted != f"metadata.name={metadata['name']}":
        return False
    pairs = [pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair]
    return all((metadata.get("labels") or {}).get(key) == value for key, value in pairs)


def _merged(old: Any, new: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    both = {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return {key: value for key, value in both.items() if value is not None}


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def _kubeconfig(host: str, certificate: Path) -> Json:
    authority = certificate.read_text().partition("-----BEGIN CERTIFICATE-----")
    data = base64.b64encode((authority[1] + authority[2]).encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": host, "certificate-authority-data": data}}
        ],
        "users": [{"name": "test", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }


@contextlib.contextmanager
def running(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Something in a thread of its own, joined at the end."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
