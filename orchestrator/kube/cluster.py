"""The cluster file: where a study's sweep runs, and what it gets there."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, Field

from methods.errors import KubernetesError
from orchestrator.kube.names import NAMESPACE
from orchestrator.kube.template.fields import PodTemplate
from orchestrator.study.places import place_of_bucket
from orchestrator.study.reading import Matching, Misfit, Strict, read_as
from orchestrator.study.sections import Resources


def _claim_uri(uri: str) -> str:
    if re.fullmatch(r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?", uri):
        return uri
    hint = ""
    if uri.startswith(("s3://", "gs://", "abfs://")):
        hint = (
            "; a sweep appends to its ledger, which a bucket cannot do; give it as `bucket`, for "
            "checkpoints and evidence, and a small claim as `storage`, for the head alone"
        )
    elif uri.startswith(("file://", "hostpath://")):
        hint = "; a node's local disk is not visible to the other pods"
    raise ValueError(f"must be pvc://CLAIM, but got {uri!r}{hint}")


Name = Annotated[
    str,
    Matching(
        r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?",
        "lower-case letters, digits and dashes between them, at most 63",
    ),
]
Memory = Annotated[str, Matching(r"[1-9][0-9]*(Mi|Gi|Ti)", "a number and Mi, Gi or Ti, as in 6Gi")]
Version = Annotated[str, Matching(r"[0-9]+\.[0-9]+\.[0-9]+", "a version such as 2.60.0")]
Claim = Annotated[
    str, AfterValidator(_claim_uri), Field(json_schema_extra={"pattern": "^pvc://.+$"})
]
BucketUri = Annotated[
    str,
    AfterValidator(place_of_bucket),
    Field(json_schema_extra={"pattern": "^(s3|gs)://.+$"}, examples=["s3://BUCKET/isoflop"]),
]
SPOT: Mapping[str, tuple[str, str]] = {
    "karpenter": ("karpenter.sh/capacity-type", "spot"),
    "gke": ("cloud.google.com/gke-spot", "true"),
    "eks": ("eks.amazonaws.com/capacityType", "SPOT"),
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot"),
}
"""The label that each provider puts on its spot nodes."""


class Toleration(Strict):
    """A taint that pods tolerate; Kubernetes' own words."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @pydantic.model_validator(mode="after")
    def _value_where_equal(self) -> "Toleration":
        if (self.operator == "Equal") != (self.value is not None):
            raise Misfit("`value` goes with `operator: Equal`, and only with it", "operator")
        return self


class Pods(Strict):
    """On which nodes pods may run, and what is added to them."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: list[Toleration] = Field(default_factory=list)
    """Taints that the pods tolerate."""
    object_store: Memory | None = None
    """Ray's object store in each pod, a part of its memory; by default 500 MB. It lies in
    /dev/shm, which is 512Mi larger."""
    pod_template: PodTemplate | None = None
    """What is added to these pods, after the `pod_template` at the top of the file."""


class Head(Pods):
    """The head: Ray's own services and the sweep's driver; no trial runs there."""

    cpu: Annotated[int, Field(ge=1)] = 2
    """CPU cores; request and limit."""
    memory: Memory = "6Gi"
    """Request and limit."""


class Workers(Pods):
    """One kind of worker pod."""

    name: Name
    """Name of the group."""
    replicas: Annotated[int, Field(ge=0)] = 1
    """Number of pods; with autoscaling the fewest."""
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    """The most pods, with autoscaling only."""
    cpu: Annotated[int, Field(ge=1)]
    """CPU cores of a pod; request and limit."""
    memory: Memory
    """Memory of a pod; request and limit."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """Whole GPUs, or slices of the kind named by `gpu_resource`, of a pod."""
    gpu_resource: str = "nvidia.com/gpu"
    """The extended resource that the GPUs are asked for by, as `nvidia.com/mig-1g.10gb`."""
    spot: Literal["karpenter", "gke", "eks", "aks"] | None = None
    """Whose spot nodes the pods run on; a preempted trial resumes elsewhere."""

    @property
    def most(self) -> int:
        """The most pods that there can be."""
        return self.max_replicas or self.replicas

    def holds(self, trial: Resources) -> int:
        """How many workers of trials one pod holds; a trial has one, unless it is spread."""
        by_cpu = int(self.cpu / trial.cpu + 1e-9)
        return min(by_cpu, int(self.gpu / trial.worker_gpu + 1e-9)) if trial.gpu else by_cpu

    @pydantic.model_validator(mode="after")
    def _some(self) -> "Workers":
        if self.most < max(1, self.replicas):
            raise ValueError(
                "a group has one pod at least, and `replicas <= max_replicas`, but got "
                f"(replicas={self.replicas}, max_replicas={self.max_replicas})"
            )
        return self


class Trial(Strict):
    """What one trial takes here, instead of the study's `resources`."""

    cpu: Annotated[float, Field(gt=0)] | None = None
    """CPU cores of each worker of a trial."""
    gpu: Annotated[float, Field(ge=0)] | None = None
    """GPUs; a fraction packs several trials on one, without isolation of their memory."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes that train one trial together."""


class Cleanup(Strict):
    """What is deleted in steps after the end, beside all pods after `keep_minutes`."""

    workers_minutes: Annotated[int, Field(ge=0)] | None = None
    """Minutes after which the worker pods and their GPUs are free; the head keeps its logs for
    `keep_minutes`. Not with autoscaling, which frees idle workers by itself."""
    job_hours: Annotated[float, Field(ge=1, le=100_000)] | None = None
    """Hours after which the RayJob is deleted, and the study's ConfigMap with it: `status` does not
    list the sweep any more. The study's folder and MLflow stay."""

    @property
    def job_seconds(self) -> int | None:
        """`job_hours` as KubeRay takes it."""
        return None if self.job_hours is None else round(3600 * self.job_hours)


class SecretKey(Strict):
    """One value in a Secret; the value itself is never read here."""

    secret: Name
    """Name of the Secret, in the sweep's namespace."""
    key: Annotated[str, Matching(r"[-._a-zA-Z0-9]+", "letters, digits, -, _ and .")] = "uri"
    """Which of its values."""


class Cluster(Strict):
    """Where a sweep runs."""

    version: Literal[1] = 1
    """Version of this format."""
    namespace: Name = NAMESPACE
    """Namespace of everything."""
    image: Annotated[str, Field(min_length=1, examples=["registry/isoflop:0.1.0-ray2.60.0"])]
    """Image of every pod; its tag ends in Ray's version (`-ray2.60.0`), or `ray` gives it."""
    ray: Version | None = None
    """Ray's version in the image, where its tag does not give it."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When nodes fetch the image."""
    pull_secret: Name | None = None
    """Secret of the image's registry."""
    storage: Annotated[Claim, Field(examples=["pvc://runs"])]
    """`pvc://CLAIM` that holds ledgers and checkpoints, mounted at /runs in every pod; with
    `bucket` in the head alone."""
    one_node: bool = False
    """Whether all pods run on one node, so that a ReadWriteOnce claim is enough."""
    bucket: BucketUri | None = None
    """`s3://BUCKET/PREFIX` for the checkpoints and evidence of trials: workers have no claim then,
    and one that is ReadWriteOnce is enough for the head."""
    bucket_secret: Name | None = None
    """Secret with the keys of the bucket: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and, if it
    has them, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL. By default the pods have rights by
    their service account."""
    datasets: Claim | None = None
    """`pvc://CLAIM` with data, mounted read-only at /data."""
    head: Head = Head()
    """Ray's head, where the sweep's driver runs."""
    workers: Annotated[
        list[Workers],
        Field(min_length=1, max_length=7, examples=[[{"name": "cpu", "cpu": 4, "memory": "8Gi"}]]),
    ]
    """Groups of worker pods; Kueue accepts seven at most."""
    pod_template: PodTemplate | None = None
    """What is added to the head and all workers, in Kubernetes' own words."""
    trial: Trial = Trial()
    """What a trial takes on this cluster; by default as the study's `resources` say."""
    mlflow: Annotated[SecretKey, Field(examples=[{"secret": "mlflow"}])]
    """The MLflow server's URI; keys `username` and `password` in the same Secret are used too."""
    optuna: SecretKey | None = None
    """URI of a database for Optuna alone; by default a journal file beside the ledger."""
    queue: Name | None = None
    """Kueue's LocalQueue in which the sweep waits."""
    autoscaling: bool = False
    """Whether groups grow to `max_replicas` and shrink; a fixed size is the safer choice."""
    mode: Literal["http", "k8s-job"] = "http"
    """Who submits the sweep to Ray: KubeRay's operator (`http`), or a separate pod."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Number of fresh clusters on which a failed sweep resumes; KubeRay uses none of them when
    `hours` are over, or when the head gave no sign for 5 minutes."""
    start_minutes: Annotated[int, Field(ge=1)] = 30
    """Minutes in which the pods of one attempt must start, or it fails; there are up to
    `retries` + 1 attempts."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Hours after which an attempt is ended, and with it the sweep; each of up to `retries` + 1
    attempts has as many. By default there is no limit."""
    keep_minutes: Annotated[int, Field(ge=0)] = 10
    """Minutes for which the pods, and so the logs, stay after the end."""
    cleanup: Cleanup | None = None
    """What else is deleted after the end; by default the RayJob stays. KubeRay has no rule for a
    sweep that is stopped through Ray (`ray job stop`): with `cleanup` its pods stay until
    `isoflop cancel`. Not with `queue`: Kueue needs KubeRay's older rule."""

    @property
    def ray_version(self) -> str | None:
        """Ray's version in the image, from the file or from the image's tag."""
        tag = re.search(r":[^@/]*ray(\d+\.\d+\.\d+)", self.image)
        return self.ray or (tag.group(1) if tag else None)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "Cluster":
        names = [group.name for group in self.workers]
        if len(set(names)) < len(names):
            raise Misfit(
                f"workers must have different names, but got {', '.join(names)}", "workers"
            )
        if not self.autoscaling and any(group.max_replicas for group in self.workers):
            raise Misfit("`max_replicas` needs `autoscaling: true`; write both, or none", "workers")
        if self.image.endswith(":latest") or not re.search(r"[:@][^/]+$", self.image):
            raise Misfit(
                f"`image` must have a digest or a tag other than `latest`, but got {self.image}",
                "image",
            )
        if self.bucket_secret and not (self.bucket or "").startswith("s3://"):
            raise Misfit(
                "`bucket_secret` has keys of S3, and so needs `bucket: s3://...`", "bucket_secret"
            )
        self._check_cleanup()
        return self

    def _check_cleanup(self) -> None:
        """Refuse what KubeRay's operator would: it accepts the RayJob, and fails it then."""
        if (cleanup := self.cleanup) is None:
            return
        workers, hours = cleanup.workers_minutes, cleanup.job_hours
        if workers is None and hours is None:
            raise Misfit("`cleanup` must have `workers_minutes` or `job_hours`, or both", "cleanup")
        if self.queue:
            raise Misfit(
                "`cleanup` must stand without `queue`, which needs the rule that deletes all pods "
                "after `keep_minutes`; delete one of them",
                "cleanup",
            )
        if workers is not None and self.autoscaling:
            raise Misfit(
                "`workers_minutes` must stand without `autoscaling`, which frees idle workers by "
                "itself; delete it",
                "cleanup",
            )
        if workers is not None and workers > self.keep_minutes:
            raise Misfit(
                "`workers_minutes <= keep_minutes` must hold, but got "
                f"(workers_minutes={workers}, keep_minutes={self.keep_minutes})",
                "cleanup",
            )
        if (seconds := cleanup.job_seconds) is not None and seconds < 60 * self.keep_minutes:
            raise Misfit(
                "`keep_minutes` must fit into `job_hours`, but got "
                f"(keep_minutes={self.keep_minutes}, job_hours={hours:g})",
                "cleanup",
            )


def claim(uri: str) -> str:
    """The PersistentVolumeClaim in a `pvc://` URI."""
    return uri.removeprefix("pvc://")


def load(path: Path) -> Cluster:
    """The cluster in a YAML file.

    Raises:
        KubernetesError: no such file, no YAML, or a field that cannot be as written.
    """
    hint = "; name one with --cluster, k8s/clusters/ has examples"
    return read_as(Cluster, path, what="a cluster", error=KubernetesError, hint=hint)[0]
