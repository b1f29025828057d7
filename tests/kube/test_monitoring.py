"""What Prometheus reads of a sweep, who lets it in, and what Grafana shows."""

import functools
import json
import re
from collections.abc import Iterator

import kubernetes_validate
import yaml
from manifests import K8S, Json, allowed, chart, fits, helm, named, ray_pods, rules

DASHBOARD = K8S / "chart" / "dashboard.json"
PORT = 8080
"""KubeRay's default of `metrics-export-port`; it names the container's port `metrics`."""
PROMETHEUS = {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/instance": "k8s"}
"""Labels that prometheus-operator gives to its pods."""
SINGLE = re.compile(r"ray_\w+")


@functools.cache
def component() -> tuple[Json, ...]:
    """The chart's objects with `monitoring.create`."""
    (reply,) = helm({"values": {"monitoring": {"create": True}}})
    assert "error" not in reply, reply
    return tuple(yaml.safe_load_all(reply["text"]))


def example_pods() -> Iterator[Json]:
    for name in ("rayjob-cpu.yaml", "rayjob-gpu.yaml"):
        job = list(yaml.safe_load_all((K8S / "examples" / name).read_text()))[1]
        yield from (pod for _, pod in ray_pods(job))


def test_prometheus_finds_every_pod_of_ray_and_no_other() -> None:
    spec = named(component(), "PodMonitor", "ray")["spec"]
    assert all(fits(spec["selector"], pod["metadata"]["labels"]) for pod in example_pods())
    for each in chart("local"):
        if each["kind"] in ("Deployment", "StatefulSet"):
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert not fits(spec["selector"], labels), each["metadata"]["name"]
    assert [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]] == ["metrics"]


def test_only_prometheus_is_let_in_and_only_to_the_figures() -> None:
    policy = named(component(), "NetworkPolicy", "prometheus-to-ray")
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    assert [(p["port"], p["protocol"]) for p in rule["ports"]] == [(PORT, "TCP")]
    assert fits(peer["podSelector"], PROMETHEUS)
    assert not fits(peer["podSelector"], {"app.kubernetes.io/name": "grafana"})
    assert fits(peer["namespaceSelector"], {"kubernetes.io/metadata.name": "monitoring"})
    for pod in example_pods():
        labels = pod["metadata"]["labels"]
        assert fits(policy["spec"]["podSelector"], labels)
        assert rules("local", labels, "Ingress") is not None
        assert not allowed("local", PROMETHEUS, labels, PORT, "monitoring"), "the base denies it"
    kubernetes_validate.validate(policy, "1.37", strict=True)


def test_nobody_takes_the_port_of_the_figures() -> None:
    for pod in example_pods():
        ports = [port for each in pod["spec"]["containers"] for port in each.get("ports", [])]
        assert all(port["containerPort"] != PORT and port["name"] != "metrics" for port in ports)


def test_the_pod_monitor_has_the_fields_of_its_kind_and_no_other() -> None:
    monitor = named(component(), "PodMonitor", "ray")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]) == {"selector", "podTargetLabels", "podMetricsEndpoints"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert set(endpoint) == {"port", "interval"}


def test_grafana_finds_the_dashboard_and_it_is_whole() -> None:
    config = named(component(), "ConfigMap", "isoflop-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    kubernetes_validate.validate(config, "1.37", strict=True)
    dashboard = json.loads(config["data"]["isoflop.json"])
    assert dashboard == json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"]
            assert expression.count("(") == expression.count(")")
            assert expression.count("{") == expression.count("}")
            assert SINGLE.search(expression)
            assert 'namespace=~"$namespace"' in expression
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - {"__all"}
    assert used == variables


def test_the_dashboard_adds_up_what_may_be_added() -> None:
    """A driver that follows another has a series of its own: the larger holds, not the sum."""
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    ours = [each for each in expressions if "ray_isoflop" in each]
    assert len(ours) == 7
    for each in ours:
        assert re.search(r"max by \([^)]*study[^)]*\) \(ray_isoflop_\w+\{", each), each
