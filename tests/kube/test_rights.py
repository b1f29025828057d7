"""The Role sweep-submitter holds what the commands ask for, and nothing that they do not."""

import re
from collections.abc import Callable

import pytest
from manifests import Json, chart, named
from server import JOBS, MAPS, Server, running
from value_sets import SETS

VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
LABELS = {"app.kubernetes.io/managed-by": "isoflop"}


def asked(request: str) -> tuple[str, str, str, str] | None:
    """Group, resource, name and verb of a request; None for discovery, which all may, and for
    what may be refused."""
    method, path = request.split(" ")
    place, _, query = path.partition("?")
    if re.fullmatch(r"/apis/[^/]+/[^/]+", place) or place == "/api/v1/pods":
        return None
    match = re.fullmatch(
        r"/(?:api|apis/(?P<group>[^/]+))/[^/]+/namespaces/isoflop"
        r"(?:/(?P<kind>[^/]+)(?:/(?P<name>[^/]+)(?P<sub>/log)?)?)?",
        place,
    )
    assert match, request
    if match["kind"] is None:
        return ("", "namespaces", "isoflop", "get")
    verb = VERBS[method]
    if method == "GET" and match["name"] is None:
        verb = "watch" if "watch=true" in query else "list"
    return (match["group"] or "", match["kind"] + (match["sub"] or ""), match["name"] or "", verb)


def test_the_role_allows_what_is_asked_and_no_more(
    server: Server, isoflop: Callable[..., int], files: tuple[str, str]
) -> None:
    with open(files[1], "a") as file:  # noqa: PTH123
        file.write("queue: sweeps\noptuna: {secret: isoflop-optuna}\n")
    queues = "/apis/kueue.x-k8s.io/v1beta2/namespaces/isoflop/localqueues"
    server.put(f"{queues}/sweeps", {"spec": {}})
    server.fail("GET", r"^/api/v1/pods\?", "403", times=99)  # a Role grants nothing elsewhere

    def operator() -> None:
        server.until(lambda: server.asked("watch=true") > 0)
        name = server.names(JOBS)[0]
        server.pod("head", "c")
        server.logs["head"] = ["line"]
        status = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterName": "c"}
        server.status(name, **status)
        server.until(lambda: server.asked("/pods/head/log") > 0)
        server.status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    with running(operator):
        assert isoflop("submit", files[0], "--wait") == 0
    name = server.names(JOBS)[0]
    assert isoflop("status") == isoflop("status", name) == isoflop("logs", name) == 0
    assert isoflop("cancel", name) == 0
    server.put(f"{MAPS}/{name}", {"metadata": {"labels": LABELS}})  # one to be taken over
    server.fail("PATCH", "/configmaps/", "422")  # and removed again
    assert isoflop("submit", files[0]) == 2

    rules: list[Json] = named(chart("production"), "Role", "sweep-submitter")["rules"]
    granted = {
        (group, resource, name, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }
    used = set()
    for request in server.requests:
        want = asked(request)
        if want is None:
            continue
        kind, name = (*want[:2], want[3]), want[2]
        fits = {g for g in granted if (*g[:2], g[3]) == kind and g[2] in ("", name)}
        assert fits, request
        used |= fits
    assert granted == used


def test_no_other_account_has_rights() -> None:
    for name in SETS:
        kinds = [o["kind"] for o in chart(name)]
        assert not {"ClusterRole", "ClusterRoleBinding"} & set(kinds)
        assert ("RoleBinding" in kinds) == (name in ("team", "second"))
        for account in (o for o in chart(name) if o["kind"] == "ServiceAccount"):
            assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("GET /apis/ray.io/v1", None),
        (f"GET {JOBS}?watch=true", ("ray.io", "rayjobs", "", "watch")),
        ("GET /api/v1/namespaces/isoflop/pods/x/log?a=b", ("", "pods/log", "x", "get")),
    ],
)
def test_requests_are_read_as_kubernetes_reads_them(
    request_: str, expected: tuple[str, ...] | None
) -> None:
    assert asked(request_) == expected
