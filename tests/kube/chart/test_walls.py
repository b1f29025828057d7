"""The NetworkPolicies of every value set, as a cluster would apply them."""

import pytest
from manifests import SETS, SHIPPED, allowed, fits, leaves, open_at, rules

HEAD = {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head"}
WORKER = {"ray.io/is-ray-node": "yes", "ray.io/node-type": "worker"}
MLFLOW = {"app.kubernetes.io/name": "mlflow"}
POSTGRES = {"app.kubernetes.io/name": "postgres"}
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}
SUBMITTER = {"app.kubernetes.io/component": "submitter"}


@pytest.mark.parametrize("name", SETS)
def test_what_must_talk_may_and_nothing_else(name: str) -> None:
    assert allowed(name, OPERATOR, HEAD, 8265, "kuberay-system")
    assert allowed(name, SUBMITTER, HEAD, 8265)
    assert allowed(name, HEAD, WORKER, 40000)
    assert allowed(name, WORKER, HEAD, 6379)
    assert allowed(name, HEAD, MLFLOW, 5000)
    if name in ("local", "team"):
        assert allowed(name, MLFLOW, POSTGRES, 5432)
        assert allowed(name, HEAD, POSTGRES, 5432)
    anywhere = name != "team"
    assert allowed(name, OPERATOR, HEAD, 8265, "elsewhere") == anywhere
    labels = {"app.kubernetes.io/component": "kuberay-operator"}
    assert allowed(name, labels, HEAD, 8265, "ray") == anywhere
    people = {"production": "ingress-nginx", "team": "gateway"}.get(name)
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
            assert leaves(name, MLFLOW, address, port) == (name == "production")
            assert not any(leaves(name, labels, address, port) for labels in (HEAD, WORKER))
            assert not leaves(name, HEAD, address, 443)
