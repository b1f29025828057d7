"""What a sweep needs and takes, as comments above its YAML."""

from collections import defaultdict
from dataclasses import dataclass

from orchestrator.kube import pods
from orchestrator.kube.cluster import Cluster, claim
from orchestrator.kube.pods import Manifest
from orchestrator.kube.render import Rendered, templates
from orchestrator.kube.template.needs import needs
from orchestrator.kube.template.quantities import amount

KUBERAY = "1.6"
"""The oldest KubeRay that knows every field that is rendered; the tests hold them against 1.7.0."""
DISK = "ephemeral-storage"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long a sweep takes by `isoflop plan --rate`, and what its GPUs cost."""

    rate: float
    """Images per second that one GPU trains."""
    hours: float | None
    """None where the time of a method is not known."""
    gpus: int
    """GPUs of all pods."""
    busy: float
    """GPUs that trials use at once, at most."""
    price: float | None = None
    """What one GPU costs for one hour, in the user's currency."""


def preface(rendered: Rendered, cluster: Cluster, effort: Effort | None = None) -> str:
    """What must be there for a sweep, and what it takes, as comments above its YAML."""
    mode = "ReadWriteOnce or ReadWriteMany" if cluster.one_node else "ReadWriteMany"
    storage = "ReadWriteOnce or ReadWriteMany, for the head alone" if cluster.bucket else mode
    specs = [template["spec"] for template in templates(rendered.ray_job).values()]
    ours = any(spec.get("serviceAccountName") == pods.ACCOUNT for spec in specs)
    objects = [
        *(["ServiceAccount ray-sweep (isoflop's Helm chart has it)"] if ours else []),
        f"PersistentVolumeClaim {claim(cluster.storage)}, {storage}",
        *_data_claim(cluster, mode),
        f"Secret {cluster.mlflow.secret}, key {cluster.mlflow.key}; keys username and password "
        "where MLflow asks for them",
        *([f"Secret {cluster.optuna.secret}, key {cluster.optuna.key}"] if cluster.optuna else []),
        *([_bucket_keys(cluster.bucket_secret)] if cluster.bucket_secret else []),
        *([f"Secret {cluster.pull_secret}, of the registry"] if cluster.pull_secret else []),
        *([f"LocalQueue {cluster.queue}, of Kueue"] if cluster.queue else []),
    ]
    classes, referred = needs(specs)
    ours_too = {" ".join(each.replace(",", "").split()[:2]) for each in objects}
    referred = [each for each in referred if each not in {*ours_too, f"ConfigMap {rendered.name}"}]
    attempts = _count(cluster.retries + 1, "attempt")
    ends = f", {cluster.hours:g} h until it is ended" if cluster.hours else ""
    lines = [
        f"Must be installed: KubeRay {KUBERAY} or newer{' and Kueue' if cluster.queue else ''}.",
        *([f"Must exist in the cluster: {', '.join(classes)}."] if classes else []),
        *([_bucket(cluster)] if cluster.bucket else []),
        f"Namespace {rendered.namespace} must exist, and in it:",
        *(f"  {each}" for each in [*objects, *referred]),
        f"Takes at most {_totals(rendered.ray_job)}.",
        f"Runs {_count(rendered.slots, 'trial')} at once when all pods are there.",
        f"Makes at most {attempts}; each has {cluster.start_minutes} min to start{ends}.",
        _after_the_end(cluster),
        *(_effort(effort, cluster) if effort else []),
    ]
    return "".join(f"# {line}\n" for line in lines)


def _bucket(cluster: Cluster) -> str:
    """The bucket, and by what the pods may use it."""
    by = "the keys of its Secret" if cluster.bucket_secret else "their service accounts"
    place = (cluster.bucket or "").partition("?")[0]
    return f"Must exist: {place}, which head and workers can write, list, read and delete by {by}."


def _bucket_keys(secret: str) -> str:
    first, second, *others = pods.KEYS
    more = f"{', '.join(others)} where the bucket needs them"
    return f"Secret {secret}, keys {first} and {second}; {more}"


def _data_claim(cluster: Cluster, mode: str) -> list[str]:
    if not cluster.datasets:
        return []
    return [f"PersistentVolumeClaim {claim(cluster.datasets)}, {mode} or ReadOnlyMany"]


def _effort(effort: Effort, cluster: Cluster) -> list[str]:
    """Hours and cost, if no attempt fails."""
    gpus = _count(effort.gpus, "GPU")
    if effort.hours is None:
        return [
            f"Hours are not known: `isoflop plan --rate {effort.rate:g}` says of which methods."
        ]
    lines = [
        f"Runs about {effort.hours:.3g} h, as `isoflop plan --rate {effort.rate:g}` estimates, on "
        f"{gpus}, of which trials use {effort.busy:g} at most.",
    ]
    if effort.price is not None:
        early = cluster.cleanup.workers_minutes if cluster.cleanup else None
        kept = cluster.keep_minutes if early is None else early
        cost = effort.price * effort.gpus * (effort.hours + kept / 60)
        most = "Costs at most about" if cluster.autoscaling else "Costs about"
        lines.append(
            f"{most} {cost:,.2f} for GPUs at {effort.price:g} per GPU-hour, in that price's "
            f"currency: {gpus} for those hours, and for {kept} min until the workers are deleted."
        )
        lines.append("CPUs, memory, storage and network are not in it, nor GPUs of a second try.")
    if cluster.hours and effort.hours > cluster.hours:
        lines.append(f"`hours: {cluster.hours:g}` would end it before that.")
    return lines


def _after_the_end(cluster: Cluster) -> str:
    cleanup, pods_go = cluster.cleanup, f"its pods are deleted after {cluster.keep_minutes} min"
    workers = cleanup.workers_minutes if cleanup else None
    if workers is not None:
        pods_go = (
            f"its workers are deleted after {workers} min and its head after "
            f"{cluster.keep_minutes} min"
        )
    if cleanup is None or cleanup.job_hours is None:
        return f"At its end {pods_go}; the RayJob stays until `isoflop cancel`."
    return f"At its end {pods_go}, the RayJob after {cleanup.job_hours:g} h."


def _totals(ray_job: Manifest) -> str:
    """Pods and what they request, with every group at its largest."""
    spec = ray_job["spec"]
    cluster = spec["rayClusterSpec"]
    sets = [(cluster["headGroupSpec"]["template"], 1)]
    sets += [(group["template"], group["maxReplicas"]) for group in cluster["workerGroupSpecs"]]
    if "submitterPodTemplate" in spec:
        sets.append((spec["submitterPodTemplate"], 1))
    requests = [
        (_requested(container), copies)
        for template, copies in sets
        for container in template["spec"]["containers"]
    ]
    if "autoscalerOptions" in cluster:
        requests.append((cluster["autoscalerOptions"]["resources"]["requests"], 1))
    amounts: defaultdict[str, float] = defaultdict(float)
    for request, copies in requests:
        for resource, quantity in request.items():
            amounts[resource] += copies * amount(quantity)
    others = set(amounts) - {"cpu", "memory", DISK}
    gpus = [f"{amounts[key]:g} {key}" for key in sorted(others)]
    memory, disk = (amounts[key] / amount("1Gi") for key in ("memory", DISK))
    parts = [_count(sum(copies for _, copies in sets), "pod"), f"{amounts['cpu']:g} CPUs"]
    parts += [f"{memory:.4g} GiB of memory", *([f"{disk:.4g} GiB of disk"] if disk else [])]
    return ", ".join([*parts, *(gpus or ["no GPUs"])])


def _requested(container: Manifest) -> dict[str, str]:
    """What a container requests; where it only has limits, these."""
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
