"""The NetworkPolicies of every value set, as a cluster would apply them."""

import pytest
from manifests import allowed, fits, leaves, open_at, rules
from value_sets import PRODUCTION, SETS, SHIPPED, SPACES, TRACKING

HEAD = {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head"}
WORKER = {"ray.io/is-ray-node": "yes", "ray.io/node-type": "worker"}
MLFLOW = {"app.kubernetes.io/name": "mlflow"}
POSTGRES = {"app.kubernetes.io/name": "postgres"}
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}
SUBMITTER = {"app.kubernetes.io/component": "submitter"}
ACCOUNT = {"app.kubernetes.io/name": "team-account"}
OWN_OPERATOR = ("team", "second")
"""Value sets that name the operator's namespace."""
PEOPLE = {
    "production": "ingress-nginx",
    "team": "gateway",
    "second": "gateway",
    "openshift": "openshift-ingress",
}
"""Value set -> the namespace through which people reach MLflow."""


@pytest.mark.parametrize("name", SETS)
def test_what_must_talk_may_and_nothing_else(name: str) -> None:
    assert allowed(name, OPERATOR, HEAD, 8265, "kuberay-system")
    assert allowed(name, SUBMITTER, HEAD, 8265)
    assert allowed(name, HEAD, WORKER, 40000)
    assert allowed(name, WORKER, HEAD, 6379)
    assert allowed(name, HEAD, MLFLOW, 5000)
    has_database = name not in (*PRODUCTION, "bare")
    for source in (MLFLOW, HEAD, ACCOUNT):
        assert allowed(name, source, POSTGRES, 5432) == has_database or source == ACCOUNT
    assert allowed(name, ACCOUNT, MLFLOW, 5000) == (name in (*PRODUCTION, "team", "second"))
    anywhere = name not in OWN_OPERATOR
    assert allowed(name, OPERATOR, HEAD, 8265, "elsewhere") == anywhere
    labels = {"app.kubernetes.io/component": "kuberay-operator"}
    assert allowed(name, labels, HEAD, 8265, "ray") == anywhere
    people = PEOPLE.get(name)
    assert allowed(name, {}, MLFLOW, 5000, people or "gateway") == bool(people)
    assert not allowed(name, {}, HEAD, 8265, "elsewhere")
    assert not allowed(name, OPERATOR, HEAD, 6379, "kuberay-system")
    assert not allowed(name, WORKER, MLFLOW, 5000)
    assert not allowed(name, WORKER, POSTGRES, 5432)
    assert not allowed(name, MLFLOW, HEAD, 8265)
    assert not allowed(name, {}, HEAD, 8265)
    assert not allowed(name, {}, SUBMITTER, 80, "elsewhere")
    assert not allowed(name, SUBMITTER, MLFLOW, 5000)
    assert not allowed(name, {}, MLFLOW, 5000, "elsewhere")
    for source in (HEAD, MLFLOW, ACCOUNT, {}):
        for port, target in {5000: MLFLOW, 5432: POSTGRES, 8265: HEAD}.items():
            assert not allowed(name, source, target, port, "elsewhere")
    for target in (HEAD, WORKER):
        assert not allowed(name, ACCOUNT, target, 8265)
        assert not allowed(name, MLFLOW, target, 6379)
    if SPACES[name] != TRACKING[name]:
        assert not allowed(name, HEAD, MLFLOW, 5000, TRACKING[name]), "no sweep is there"


def test_teams_do_not_reach_each_other() -> None:
    """`second` has the objects of both."""
    for target, port in ((HEAD, 8265), (HEAD, 6379), (WORKER, 40000)):
        for source in (HEAD, WORKER, SUBMITTER, {}):
            assert not allowed("second", source, target, port, "team-a")
            assert not allowed("team", source, target, port, "team-b")
    assert allowed("second", HEAD, MLFLOW, 5000, "team-a")
    assert not allowed("team", HEAD, MLFLOW, 5000, "team-b"), "only with the release of team-b"


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
@pytest.mark.parametrize("name", [*SHIPPED, "bare"])
def test_every_pod_resolves_names_wherever_a_cluster_has_its_dns(name: str, protocol: str) -> None:
    addresses = {
        "NodeLocal DNSCache": "169.254.20.10",
        "GKE's Cloud DNS": "169.254.169.254",
        "kubeadm's Service": "10.96.0.10",
        "k3s's Service": "10.43.0.10",
        "EKS's Service": "172.20.0.10",
        "GKE's Service": "34.118.224.10",
    }
    servers = [
        ("kube-system", {"k8s-app": "kube-dns"}, 53),
        ("kube-system", {"k8s-app": "node-local-dns"}, 53),
        ("openshift-dns", {"dns.operator.openshift.io/daemonset-dns": "default"}, 5353),
    ]
    for labels in (HEAD, WORKER, MLFLOW, SUBMITTER):
        for where, address in addresses.items():
            assert leaves(name, labels, address, 53, protocol), where
        for space, server, port in servers:
            assert any(
                open_at(rule, port, protocol)
                and fits(peer.get("namespaceSelector"), {"kubernetes.io/metadata.name": space})
                and fits(peer.get("podSelector", {}), server)
                for rule in rules(name, labels, "Egress") or []
                for peer in rule.get("to", [])
                if "namespaceSelector" in peer
            ), space
        assert not leaves(name, labels, "8.8.8.8", 53, protocol)


def test_mlflow_alone_reaches_the_metadata_servers_of_workload_identity() -> None:
    places = [
        ("169.254.169.254", 80),
        ("169.254.169.252", 988),
        ("169.254.170.23", 80),
        ("fd00:ec2::23", 80),
    ]
    for address, port in places:
        for name in SETS:
            assert leaves(name, MLFLOW, address, port) == (name in ("production", "eks"))
            assert not any(leaves(name, labels, address, port) for labels in (HEAD, WORKER))
            assert not leaves(name, HEAD, address, 443)
