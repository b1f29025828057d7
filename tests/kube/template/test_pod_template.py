"""`pod_template` in a cluster file: what it renders, and what is refused of it, in a sentence."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CLUSTER, STUDY
from manifests import ROOT, pods, ray_pods
from merging import job, rendered, validate

from methods.errors import KubernetesError
from orchestrator.kube.cluster import load
from orchestrator.kube.preface import preface
from orchestrator.kube.render import dump, render
from orchestrator.kube.template import schema
from orchestrator.kube.template.quantities import amount

Json = dict[str, Any]
GOLDEN = ROOT / "tests" / "data" / "pods"
PAGE = (ROOT / "docs" / "cluster.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(?!# values)(.*?)```", PAGE, re.DOTALL)
"""The parts of cluster files on the page."""


def test_a_file_that_uses_all_of_it_renders_as_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    cluster = load(GOLDEN / "cluster.yaml")
    objects = render(tmp_path / "study.yaml", cluster)
    printed = preface(objects, cluster) + dump([objects.ray_job])
    golden = GOLDEN / "rayjob.yaml"
    assert printed == golden.read_text(), "write it again if the change is meant"
    validate(objects.ray_job, monkeypatch)


def test_the_recorded_file_has_what_the_templates_say() -> None:
    manifest = yaml.safe_load((GOLDEN / "rayjob.yaml").read_text())
    all_pods = {name: pod for name, pod in ray_pods(manifest) if name != "submitter"}
    head, gpu, cpu = (pod["spec"] for pod in all_pods.values())
    assert (head["priorityClassName"], gpu["priorityClassName"]) == ("batch", "batch")
    assert "priorityClassName" not in cpu, "null in the group deletes it"
    assert {pod["serviceAccountName"] for pod in (head, gpu, cpu)} == {"sweeps"}
    assert gpu["runtimeClassName"] == "nvidia"
    proxies = [{v["name"] for v in pod["containers"][0]["env"]} for pod in (head, gpu, cpu)]
    assert ["NO_PROXY" in names for names in proxies] == [True, False, True]
    assert all("HTTPS_PROXY" in names for names in proxies)
    for pod in (head, gpu, cpu):
        volumes = {each["name"]: each for each in pod["volumes"]}
        assert volumes["tmp"] == {"name": "tmp", "emptyDir": {"sizeLimit": "50Gi"}}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    groups = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    stores = [group["rayStartParams"]["object-store-memory"] for group in groups]
    assert stores == [str(4 * 2**30), "500000000"]
    annotations = all_pods["head"]["metadata"]["annotations"]
    assert "karpenter.sh/do-not-disrupt" not in annotations
    assert annotations["sidecar.istio.io/inject"] == "false"


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_page_is_valid_and_locked_down(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**yaml.safe_load(CLUSTER), **yaml.safe_load(EXAMPLES[number])}
    manifest = rendered(tmp_path, yaml.safe_dump(fields)).ray_job
    options = ("pod_template", "bucket", "bucket_secret")
    plain = {key: part for key, part in fields.items() if key not in options}
    plain["workers"] = [
        {key: part for key, part in group.items() if key not in ("pod_template", "object_store")}
        for group in fields["workers"]
    ]
    assert manifest != rendered(tmp_path, yaml.safe_dump(plain)).ray_job
    validate(manifest, monkeypatch)


def test_an_empty_template_renders_nothing_else(tmp_path: Path) -> None:
    plain = rendered(tmp_path, CLUSTER).ray_job
    assert job(tmp_path, "{}") == plain
    assert job(tmp_path, "spec: {containers: []}") == plain
    assert job(tmp_path, "spec: {containers: [{name: ray}]}") == plain


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("spec: {priorityClas: batch}", "did you mean 'priorityClassName'?"),
        ("spec: {priority_class_name: batch}", "did you mean 'priorityClassName'?"),
        ("spec: {containers: [{name: ray, volumeMount: []}]}", "did you mean 'volumeMounts'?"),
        (
            "spec: {topologySpreadConstraints: [{topologyKey: zone, maxSkew: many}]}",
            "maxSkew must be",
        ),
        ("spec: {containers: [null]}", "must hold `field: value` pairs, but got nothing"),
        ("spec: {containers: [{name: null}]}", "merged by `name`"),
        ("spec: [a]", "spec must"),
        ("spec: {hostNetwork: 'yes'}", "hostNetwork must be"),
        ("spec: {volumes: {name: tmp}}", "volumes must be a list"),
        ("spec: {securityContext: strict}", "must hold `field: value` pairs"),
        ("spec: {runtimeClassName: 3}", "must be text"),
        ("spec: {volumes: [{emptyDir: {}}]}", "merged by `name`"),
        ("spec: {volumes: [{name: a, emptyDir: {}}, {name: a}]}", "one entry for each `name`"),
        (
            "spec: {containers: [{name: ray, ports: [{containerPort: 53}, "
            "{containerPort: 53, protocol: TCP}]}]}",
            "one entry for each `containerPort` and `protocol`, but has two for 53 and 'TCP'",
        ),
        ("spec: {hostAliases: [{ip: 1.1.1.1, $patch: remove}]}", "must be merge, replace, delete"),
        ("spec: {$setElementOrder/containers: []}", "no field that Kubernetes knows"),
        ("specs: {}", "did you mean 'spec'?"),
        ("metadata: {name: x}", "pod_template.metadata.name is no field"),
        ("metadata: {annotations: {a: true}}", "must be text"),
        ("metadata: {labels: {ray.io/group: x}}", "must not have ray.io/group"),
        ("metadata: {labels: {app.kubernetes.io/component: x}}", "choose another name"),
        ("spec: {nodeSelector: {a: b}}", "write `node_selector` under `head`"),
        ("spec: {tolerations: []}", "write `tolerations` under"),
        ("spec: {restartPolicy: Always}", "for KubeRay and Kubernetes to set"),
        ("spec: {resources: {limits: {memory: 1Gi}}}", "write `cpu` and `memory`"),
        ("spec: {schedulingGates: [{name: wait}]}", "write `queue` to wait in one of Kueue's"),
        ("spec: {activeDeadlineSeconds: 5}", "write `hours` at the top of the cluster file"),
        ("spec: {os: {name: windows}}", "spec.os.name must be linux, but got 'windows'"),
        (
            "spec: {volumes: [{name: tmp, emptyDir: {medium: Memory, sizeLimit: 50Gi}}]}",
            "spec.volumes.0.emptyDir.medium must stay the node's disk for tmp",
        ),
        ("spec: {volumes: [{name: ray-logs, emptyDir: {medium: Memory}}]}", "for ray-logs"),
        ("spec: {containers: [{name: ray-head}]}", "is called `ray` here"),
        ("spec: {initContainers: [{name: wait-gcs-ready}]}", "which KubeRay manages"),
        ("spec: {containers: [{name: ray, image: 'x:1'}]}", "write `image` at its top"),
        ("spec: {containers: [{name: ray, imagePullPolicy: Always}]}", "write `pull_policy`"),
        ("spec: {containers: [{name: ray, command: [sh]}]}", "how KubeRay starts Ray"),
        ("spec: {containers: [{name: ray, $patch: delete}]}", "must leave Ray's container"),
        ("spec: {containers: [{name: ray, resources: {limits: {cpu: '3'}}}]}", "write `cpu` under"),
        (
            "spec: {containers: [{name: ray, resources: {requests: {memory: 3Gi}}}]}",
            "write `memory`",
        ),
        (
            "spec: {containers: [{name: ray, resources: {limits: {nvidia.com/gpu: '1'}}}]}",
            "write `gpu`, with `gpu_resource`,",
        ),
        (
            "spec: {containers: [{name: ray, env: [{name: RAY_ADDRESS, value: x}]}]}",
            "must not be RAY_ADDRESS, which KubeRay sets",
        ),
    ],
)
def test_a_template_that_does_not_do_is_refused_with_its_line(
    tmp_path: Path, template: str, sentence: str
) -> None:
    with pytest.raises(KubernetesError) as caught:
        job(tmp_path, template)
    assert sentence in str(caught.value)
    assert re.search(r"cluster\.yaml:\d+: pod_template", str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("spec: {volumes: [{name: runs, $patch: delete}]}", "leave spec.volumes.runs of the head"),
        ("spec: {volumes: [{$patch: replace}]}", "leave spec.volumes.tmp of the head"),
        (
            "spec: {volumes: [{name: runs, persistentVolumeClaim: {claimName: x}}]}",
            "runs.persistentVolumeClaim.claimName of the head as it is ('isoflop-runs')",
        ),
        ("spec: {volumes: [{name: tmp, hostPath: {path: /}}]}", "spec.volumes.tmp.hostPath"),
        ("spec: {volumes: [{name: shm, emptyDir: {medium: null}}]}", "emptyDir.medium"),
        ("spec: {volumes: null}", "leave spec.volumes of the head"),
        ("spec: {containers: null}", "leave spec.containers of the head"),
        (
            "spec: {containers: [{name: ray, volumeMounts: [{mountPath: /runs, name: x}]}]}",
            "volumeMounts./runs.name",
        ),
        (
            "spec: {containers: [{name: ray, volumeMounts: [{mountPath: /runs, subPath: a}]}]}",
            "volumeMounts./runs.subPath",
        ),
        (
            "spec: {containers: [{name: ray, "
            "env: [{name: RAY_memory_monitor_refresh_ms, value: '1'}]}]}",
            "RAY_memory_monitor_refresh_ms.value",
        ),
        (
            "spec: {containers: [{name: ray, "
            "env: [{name: NVIDIA_VISIBLE_DEVICES, $patch: delete}]}]}",
            "it takes it away",
        ),
        ("spec: {containers: [{name: log, command: [sh]}]}", "must have an image, but has none"),
        ("spec: {initContainers: [{name: driver-log, image: 'x:1'}]}", "that of one container"),
        (
            "spec: {containers: [{name: ray, volumeMounts: [{mountPath: /x, name: rnus}]}]}",
            "did you mean 'runs'?",
        ),
        ("spec: {volumes: [{name: x}]}", "volume 'x' must have one source, but has none"),
        ("spec: {volumes: [{name: shm, emptyDir: {sizeLimit: lots}}]}", "a sizeLimit such as 6Gi"),
        (
            "spec: {volumes: [{name: tmp, ephemeral: {}}]}",
            "one source, but has emptyDir and ephemeral",
        ),
        (
            "spec: {containers: [{name: ray, env: [{name: A, value: b, "
            "valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}]}",
            "but has both",
        ),
        (
            "spec: {containers: [{name: ray, resources: {limits: {ephemeral-storage: much}}}]}",
            "must have a quantity such as 500m",
        ),
        (
            "spec: {containers: [{name: ray, resources: {limits: {ephemeral-storage: 1Gi}, "
            "requests: {ephemeral-storage: 2Gi}}}]}",
            "must request no more ephemeral-storage than its limit 1Gi",
        ),
        (
            "spec: {topologySpreadConstraints: [{topologyKey: zone}]}",
            "must be given, but is missing",
        ),
        (
            "spec: {volumes: [{name: shm, emptyDir: {sizeLimit: 100Mi}}]}",
            "give the volume shm more",
        ),
        (
            "spec: {volumes: [{name: shm, emptyDir: {sizeLimit: 16Gi}}]}",
            "give the pod more `memory`",
        ),
        ("spec: {volumes: [{name: shm, emptyDir: {sizeLimit: null}}]}", "has no limit"),
    ],
)
def test_what_isoflop_needs_stays_and_what_is_added_fits(
    tmp_path: Path, template: str, sentence: str
) -> None:
    with pytest.raises(KubernetesError) as caught:
        job(tmp_path, template)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_head_stays_off_spot_nodes_and_the_autoscaler_has_its_token(tmp_path: Path) -> None:
    spot = CLUSTER.replace("name: cpu,", "name: cpu, spot: gke,")
    zones = "{matchExpressions: [{key: zone, operator: In, values: [a]}]}"
    node = f"requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{zones}]}}"
    anywhere = f"spec: {{affinity: {{nodeAffinity: {{{node}}}}}}}"
    job(tmp_path, anywhere)
    with pytest.raises(KubernetesError, match="stays off spot nodes"):
        job(tmp_path, anywhere, spot)
    token = "spec: {automountServiceAccountToken: false}"
    job(tmp_path, token)
    with pytest.raises(KubernetesError, match="autoscaler needs the token"):
        job(tmp_path, token, CLUSTER + "autoscaling: true\n")
    secret = "spec: {imagePullSecrets: [{name: registry, $patch: delete}]}"
    with pytest.raises(KubernetesError, match="`pull_secret` says it"):
        job(tmp_path, secret, CLUSTER + "pull_secret: registry\n")


def test_the_autoscaler_has_the_security_context_of_rays_container(tmp_path: Path) -> None:
    """OpenShift gives each namespace users of its own, which a pod must not choose."""
    user = "{runAsUser: null, runAsGroup: null}"
    template = (
        "spec: {securityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}, "
        f"containers: [{{name: ray, securityContext: {user}}}]}}"
    )
    manifest = job(tmp_path, template, CLUSTER + "autoscaling: true\n")
    options = manifest["spec"]["rayClusterSpec"]["autoscalerOptions"]
    assert "runAsUser" not in options["securityContext"]
    assert options["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        ("4Gi", "must be smaller than `memory: 4Gi` of the workers 'cpu', but has 4608Mi"),
        ("64Mi", "`object_store` must be at least 75Mi"),
        ("4G", "object_store must be a number and Mi, Gi or Ti"),
    ],
)
def test_an_object_store_that_does_not_fit_is_refused(
    tmp_path: Path, store: str, sentence: str
) -> None:
    with pytest.raises(KubernetesError, match=re.escape(sentence)):
        rendered(tmp_path, CLUSTER.replace("4Gi}", f"4Gi, object_store: {store}}}"))


def test_shared_memory_grows_with_the_object_store(tmp_path: Path) -> None:
    manifest = rendered(tmp_path, CLUSTER.replace("4Gi}", "4Gi, object_store: 2Gi}")).ray_job
    cluster = manifest["spec"]["rayClusterSpec"]
    sizes = []
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (shm,) = (v for v in group["template"]["spec"]["volumes"] if v["name"] == "shm")
        store = int(group["rayStartParams"]["object-store-memory"])
        sizes.append((store, shm["emptyDir"]["sizeLimit"]))
    assert sizes == [(500_000_000, "1Gi"), (2 * 2**30, "2560Mi")]


def test_a_mistake_in_a_group_is_told_with_its_place(tmp_path: Path) -> None:
    group = "4Gi, pod_template: {spec: {runtimeClas: nvidia}}}"
    with pytest.raises(KubernetesError, match=r"workers\.0\.pod_template: spec\.runtimeClas"):
        rendered(tmp_path, CLUSTER.replace("4Gi}", group))


def test_a_dry_run_says_what_the_pods_refer_to(tmp_path: Path) -> None:
    env = "{name: TOKEN, valueFrom: {secretKeyRef: {name: hub, key: token}}}"
    template = (
        "spec: {priorityClassName: batch, serviceAccountName: sweeps, "
        "volumes: [{name: ca, configMap: {name: roots}}], "
        f"containers: [{{name: ray, env: [{env}]}}]}}"
    )
    text = f"{CLUSTER}pod_template:\n  {template}\n"
    lines = preface(rendered(tmp_path, text), load(tmp_path / "cluster.yaml")).splitlines()
    assert "# Must exist in the cluster: PriorityClass batch." in lines
    for line in ("ServiceAccount sweeps", "Secret hub", "ConfigMap roots"):
        assert f"#   {line}" in lines
    assert not [line for line in lines if "ray-sweep" in line]
    assert len({line for line in lines if "isoflop-mlflow" in line}) == 1


def test_submit_dry_run_prints_it_and_a_mistake_ends_with_exit_code_2(
    files: tuple[str, str], isoflop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(files[1]).write_text(CLUSTER + "pod_template: {spec: {priorityClassName: batch}}\n")
    assert isoflop("submit", files[0], "--dry-run") == 0
    job = list(yaml.safe_load_all(capsys.readouterr().out))[1]
    templates = [pod["spec"] for _, pod in pods([job])]
    assert [spec["priorityClassName"] for spec in templates] == ["batch", "batch"]
    Path(files[1]).write_text(CLUSTER + "pod_template: {spec: {priorityClas: batch}}\n")
    assert isoflop("submit", files[0], "--dry-run") == 2
    assert "did you mean 'priorityClassName'?" in capsys.readouterr().err


def test_without_kubernetes_client_a_template_is_refused_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes.client.models.v1_pod_spec", None)
    schema._pod_spec.cache_clear()
    rendered(tmp_path, CLUSTER)
    with pytest.raises(KubernetesError, match=r"pip install 'isoflop\[k8s\]'"):
        job(tmp_path, "{}")


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("6Gi", 6 * 2**30), ("1e3", 1000), ("2k", 2000), ("1E", 1e18), ("0.5", 0.5)],
)
def test_quantities(text: str, number: float) -> None:
    assert amount(text) == number


@pytest.mark.parametrize("text", ["", "Gi", "6 Gi", "nan", "inf", "6gi", "1.2.3"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|float"):
        amount(text)
