"""A Kubernetes API server as it is, on etcd, with authorisation by roles and with the controllers
that delete what is owned, count quotas, and make accounts: what no test plays."""

import functools
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from binaries import Binaries
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from manifests import crd_file
from tls import certificate, kubeconfig

Json = dict[str, Any]
ADMIN, SUBMITTER, OUTSIDER = "admin", "sue", "oscar"
USERS = {ADMIN: "system:masters", SUBMITTER: "vision", OUTSIDER: "others"}
"""User -> group. Their names are their tokens."""
OTHERS = {
    "monitoring.coreos.com": ("v1", {"PodMonitor": "podmonitors"}, "Namespaced"),
    "kueue.x-k8s.io": (
        "v1beta2",
        {
            "ResourceFlavor": "resourceflavors",
            "ClusterQueue": "clusterqueues",
            "LocalQueue": "localqueues",
            "Workload": "workloads",
        },
        "Namespaced",
    ),
}
"""Resources of others whose definitions the tests do not have: any field is accepted of them."""
CLUSTER_WIDE = {"ResourceFlavor", "ClusterQueue", "Cohort"}
CONTROLLERS = "garbagecollector,namespace,resourcequota,serviceaccount,serviceaccount-token"
"""Those at work; none makes pods of a Deployment."""
RULES = 25
"""The version 1.25, from which on a server accepts rules of CEL and empty defaults in schemas."""
UNKNOWN = {
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
}
"""What an older server does not know, or ties to an empty default."""
STARTS = 120.0
"""Seconds within which a server is ready."""


class RealServer:
    """`with RealServer(binaries, folder) as server`: it runs."""

    def __init__(self, binaries: Binaries, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._etcd, self._peer, self.port = (_free_port() for _ in range(3))
        self.host = f"https://127.0.0.1:{self.port}"
        self._chain = certificate(folder)
        key = rsa.generate_private_key(65537, 2048)
        self._key = folder / "accounts.pem"
        self._key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        self._tokens = folder / "tokens.csv"
        self._tokens.write_text(
            "".join(f'{name},{name},{name},"{group}"\n' for name, group in USERS.items())
        )

    def __enter__(self) -> "RealServer":
        self._run(
            "etcd",
            *(self._binaries.etcd, f"--data-dir={self._folder / 'etcd'}", "--log-level=error"),
            f"--listen-client-urls=http://127.0.0.1:{self._etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{self._etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{self._peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self._peer}",
            f"--initial-cluster=default=http://127.0.0.1:{self._peer}",
            "--unsafe-no-fsync",
        )
        try:
            self.start()
            self._define()
            self._run(
                "controllers",
                *(self._binaries.controllers, f"--kubeconfig={self.kubeconfig(ADMIN)}"),
                *(
                    f"--service-account-private-key-file={self._key}",
                    f"--root-ca-file={self._chain}",
                ),
                *("--use-service-account-credentials=false", "--leader-elect=false"),
                f"--controllers={CONTROLLERS}",
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *what: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def start(self) -> None:
        """The API server itself, on the data that there are; returns when it is ready."""
        self._run(
            "apiserver",
            *(self._binaries.apiserver, f"--etcd-servers=http://127.0.0.1:{self._etcd}"),
            *(
                "--bind-address=127.0.0.1",
                f"--secure-port={self.port}",
                "--authorization-mode=RBAC",
            ),
            *(f"--tls-cert-file={self._chain}", f"--tls-private-key-file={self._chain}"),
            *(f"--token-auth-file={self._tokens}", "--service-cluster-ip-range=10.96.0.0/16"),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",  # OpenShift's
        )
        deadline = time.monotonic() + STARTS
        while not self._ready():
            assert self._processes["apiserver"].poll() is None, self._log("apiserver")
            assert time.monotonic() < deadline, self._log("apiserver")
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL for the API server; etcd keeps the data."""
        self._processes["apiserver"].send_signal(signal.SIGKILL)
        self._processes["apiserver"].wait()

    def kubeconfig(self, user: str, namespace: str = "isoflop") -> Path:
        """The file by which a user speaks to the server."""
        path = self._folder / f"{user}.kubeconfig"
        content = kubeconfig(self.host, self._chain)
        content["users"][0]["user"]["token"] = user
        content["contexts"][0]["context"]["namespace"] = namespace
        path.write_text(yaml.safe_dump(content))
        return path

    def ask(
        self, method: str, path: str, body: Json | None = None, *, user: str = ADMIN
    ) -> tuple[int, Json]:
        """A request and its answer: the status, and what was said."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {user}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # the address is ours
            self.host + path, data, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, context=self._trust, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else {"message": text}

    def must(self, method: str, path: str, body: Json | None = None) -> Json:
        """What the administrator's request gives."""
        status, answer = self.ask(method, path, body)
        assert status < 300, answer["message"][:2000]
        return answer

    @functools.cached_property
    def minor(self) -> int:
        """The version is 1.`minor`."""
        return int(self.must("GET", "/version")["minor"].rstrip("+"))

    @property
    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._chain))

    def _ready(self) -> bool:
        try:
            headers = {"Authorization": f"Bearer {ADMIN}"}
            request = urllib.request.Request(f"{self.host}/readyz", headers=headers)
            with urllib.request.urlopen(request, context=self._trust, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _run(self, name: str, *words: object) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(word) for word in words], stdout=log, stderr=log, env={**os.environ}
            )

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()[-3000:]

    def _define(self) -> None:
        """KubeRay's resources by their own schemas, and those of others without."""
        rays = {"RayJob": "rayjobs", "RayCluster": "rayclusters"}
        definitions = [
            _definition("ray.io", "v1", kind, plural, self._accepted(crd_file(plural)))
            for kind, plural in rays.items()
        ]
        loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        for group, (version, kinds, _) in OTHERS.items():
            definitions += [
                _definition(group, version, kind, plural, loose) for kind, plural in kinds.items()
            ]
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for each in definitions:
            self.must("POST", path, each)
        deadline = time.monotonic() + STARTS
        for each in definitions:
            spec = each["spec"]
            place = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
            while self.ask("GET", place)[0] != 200:
                assert time.monotonic() < deadline, place
                time.sleep(0.2)

    def _accepted(self, schema: Any) -> Any:
        """A schema without what a server of this version does not accept."""
        if self.minor >= RULES:
            return schema
        if isinstance(schema, list):
            return [self._accepted(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        return {
            key: self._accepted(value)
            for key, value in schema.items()
            if key not in UNKNOWN and (key, value) != ("default", "")
        }


def _definition(group: str, version: str, kind: str, plural: str, schema: Any) -> Json:
    """A CustomResourceDefinition."""
    one = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Cluster" if kind in CLUSTER_WIDE else "Namespaced",
            "versions": [one],
        },
    }


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
