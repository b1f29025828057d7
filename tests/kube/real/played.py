"""KubeRay's operator and the kubelet, which no API server has, on a real one."""

import datetime
import uuid
from typing import Any

from apiserver import RealServer

JOBS = "/apis/ray.io/v1/namespaces/isoflop/rayjobs"
MAPS = "/api/v1/namespaces/isoflop/configmaps"
CORE = "/api/v1/namespaces/isoflop"


class Operator:
    """The words of the tests' own server (`status`, `pod`, `event`, `names`), on a real one."""

    def __init__(self, server: RealServer) -> None:
        self._server = server

    def status(self, name: str, **status: Any) -> None:
        self._server.must("PATCH", f"{JOBS}/{name}/status", {"status": status})

    def pod(self, name: str, cluster: str, kind: str = "head", **status: Any) -> None:
        labels = {"ray.io/cluster": cluster, "ray.io/node-type": kind}
        container = {"name": "ray", "image": "isoflop:1"}
        resources = {kind: {"cpu": "1", "memory": "1Gi"} for kind in ("requests", "limits")}
        pod = {
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{**container, "resources": resources}]},
        }
        self._server.must("POST", f"{CORE}/pods", pod)
        self._server.must("PATCH", f"{CORE}/pods/{name}/status", {"status": status})

    def event(self, name: str, reason: str, message: str, kind: str = "Warning") -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "metadata": {"name": f"{name}.{uuid.uuid4().hex[:12]}"},
            "involvedObject": {"name": name, "namespace": "isoflop"},
            "reason": reason,
            "message": message,
            "type": kind,
            "lastTimestamp": now,
        }
        self._server.must("POST", f"{CORE}/events", body)

    def names(self, path: str) -> list[str]:
        items = self._server.must("GET", path)["items"]
        return sorted(each["metadata"]["name"] for each in items)
