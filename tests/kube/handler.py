"""How the API server of the tests answers a request, and errs when a fault is due."""

import json
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import yaml
from tls import TOKEN

if TYPE_CHECKING:
    from server import Server

Json = dict[str, Any]
COLLECTION = re.compile(r"^(/api/v1|/apis/[^/]+/[^/]+)/namespaces/([^/]+)/([^/]+)$")
EVERYWHERE = re.compile(r"^/api/v1/pods$")
"""The pods of all namespaces."""
APPLY = "application/apply-patch+yaml"
"""A patch that creates what is not there: server-side apply."""
BLOCKED = (
    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set "
    "finalizers on"
)
"""What OwnerReferencesPermissionEnforcement, on in OpenShift, says to the Role sweep-submitter."""
SLOW = 0.6
"""Seconds by which a slow answer is late."""


class Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class Handler(BaseHTTPRequestHandler):
    server_: "Server"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def log_message(self, *words: Any) -> None:
        """Silence."""

    def _answer(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        read = yaml.safe_load if self.headers.get("Content-Type") == APPLY else json.loads
        body = read(self.rfile.read(length) or b"null")
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
            time.sleep(SLOW)
        if fault.isdigit():
            self._status(int(fault), "a fault of the test")
            return
        if self._told(url.path, query, fault):
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

    def _told(self, path: str, query: Json, fault: str) -> bool:
        """Whether this asked for something other than an object, and has its answer."""
        if query.get("watch") == "true":
            self._watch(path, query, fault)
        elif path == "/openapi/v2":
            self._schema()
        elif path.endswith("/log"):
            self._log(path, query, fault)
        else:
            return False
        return True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

    def _fault(self) -> str:
        for fault in self.server_.faults:
            fits = fault.method == self.command and re.search(fault.path, self.path)
            if fits and fault.hits < fault.times:
                fault.hits += 1
                return fault.does
        return ""

    def _done(self, path: str, query: Json, body: Any) -> tuple[int, Json]:
        server = self.server_
        objects = server.store.objects
        with server.changed:
            current = objects.get(path)
            if self.command == "POST":
                return self._create(path, query, body)
            if self.command == "GET" and current is not None:
                return 200, current
            everywhere = EVERYWHERE.match(path)
            if self.command == "GET" and (everywhere or COLLECTION.match(path)):
                items = [objects[p] for p in sorted(objects) if _in(p, path, objects[p], query)]
                version = str(server.store.version)
                return 200, {"metadata": {"resourceVersion": version}, "items": items}
            if current is None and self.headers.get("Content-Type") == APPLY:
                return 201, server.put(path, body)
            if current is None:
                return _refusal(404, f"{path} not found")
            return self._changed(path, current, body or {})

    def _changed(self, path: str, current: Json, body: Json) -> tuple[int, Json]:
        if self.command == "DELETE":
            return self._delete(path, current, body)
        if _blocks_its_owner(body):
            return _refusal(403, BLOCKED)
        if self.command == "PATCH":
            return 200, self.server_.put(path, _merged(current, body))
        if body["metadata"].get("resourceVersion") != current["metadata"]["resourceVersion"]:
            return _refusal(409, "the object has been modified")
        return 200, self.server_.put(path, body)

    def _create(self, path: str, query: Json, body: Json) -> tuple[int, Json]:
        server = self.server_
        target = f"{path}/{body['metadata']['name']}"
        unknown = server.known(body)
        if unknown and query.get("fieldValidation") == "Strict":
            return _refusal(400, f'strict decoding error: unknown field "{unknown[0]}"')
        if _blocks_its_owner(body):
            return _refusal(403, BLOCKED)
        if target in server.store.objects:
            return _refusal(409, f"{target} already exists")
        if query.get("dryRun") == "All":
            return 201, body
        return 201, server.put(target, body)

    def _delete(self, path: str, current: Json, options: Json) -> tuple[int, Json]:
        server = self.server_
        for key, value in (options.get("preconditions") or {}).items():
            if current["metadata"].get(key) != value:
                return _refusal(409, f"the precondition {key} does not hold")
        if server.stopping and "/rayjobs/" in path:
            server.put(path, _merged(current, {"metadata": {"deletionTimestamp": "now"}}))
            threading.Timer(server.stopping, server.take, (path,)).start()
        else:
            server.take(path)
        return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _schema(self) -> None:
        """A schema in which nothing is described: the objects are checked elsewhere."""
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _watch(self, path: str, query: Json, fault: str) -> None:
        server = self.server_
        version = int(query["resourceVersion"])
        deadline = time.monotonic() + float(query["timeoutSeconds"])
        if version < server.store.oldest:
            self._begin()
            status = {"kind": "Status", "code": 410, "message": "too old"}  # a reason is optional
            self._chunk(json.dumps({"type": "ERROR", "object": status}) + "\n")
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
        sent = 0
        self._begin()
        while True:
            with server.changed:
                lines = server.logs.get(pod, [])
                if "tailLines" in query:
                    sent = max(sent, len(lines) - int(query["tailLines"]))
                here = path.removesuffix("/log") in server.store.objects
            for line in lines[sent:]:
                sent += 1
                self._chunk(line if server.unfinished and sent == len(lines) else f"{line}\n")
                if fault == "half" and sent == 2:
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


def _blocks_its_owner(body: Json) -> bool:
    owners = (body.get("metadata") or {}).get("ownerReferences") or []
    return any(owner.get("blockOwnerDeletion") for owner in owners)


def _in(path: str, collection: str, body: Json, query: Json) -> bool:
    """Whether an object is of a collection and fits the selectors."""
    place = path.rsplit("/", 1)[0]
    if EVERYWHERE.match(collection):
        place = re.sub(r"/namespaces/[^/]+", "", place)
    if place != collection:
        return False
    metadata = body["metadata"]
    field, _, wanted = query.get("fieldSelector", "").partition("=")
    if field and _value(body, field) != wanted:
        return False
    pairs = [pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair]
    return all((metadata.get("labels") or {}).get(key) == value for key, value in pairs)


def _value(body: Json, field: str) -> Any:
    value: Any = body
    for part in field.split("."):
        value = value.get(part)
    return value


def _merged(old: Any, new: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    both = {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return {key: value for key, value in both.items() if value is not None}
