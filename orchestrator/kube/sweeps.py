"""The sweeps of a namespace, as their RayJobs describe them."""

from collections.abc import Mapping
from dataclasses import dataclass

from methods.errors import KubernetesError, SweepFailed
from orchestrator.kube.api import RAY_JOBS, Api, Json
from orchestrator.kube.names import MANAGED_BY, MANAGER, STUDY_LABEL

MEANING = {
    "": "accepted; KubeRay has not begun",
    "Initializing": "pods are starting",
    "Waiting": "waiting to be submitted",
    "Running": "running",
    "Retrying": "failed once; restarting on a new cluster",
    "Suspending": "deleting its pods",
    "Suspended": "queued",
    "Complete": "complete",
    "Failed": "failed",
    "ValidationFailed": "refused by KubeRay",
}
"""KubeRay's deployment states, for people."""
CAUSES = {
    "JobStatusCheckTimeoutExceeded": (
        "KubeRay could not ask the sweep's head for its state for 5 minutes, and does not retry "
        "after that: the head's node was lost, or a NetworkPolicy keeps KubeRay's operator from "
        "port "
        "8265 of the head"
    ),
    "PreRunningDeadlineExceeded": "its pods did not start within `start_minutes`",
    "DeadlineExceeded": "the limit of `hours` has passed, and KubeRay does not retry after that",
}
"""What KubeRay's reasons mean, where that is not plain."""
RESUMES = "nothing is lost: the same submit resumes it"


@dataclass(frozen=True)
class Sweep:
    """The state of a RayJob at one moment."""

    name: str
    uid: str
    deployment: str
    """KubeRay's state of the whole; one of `MEANING`."""
    job: str
    """Ray's state of the driver: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED, or nothing yet."""
    reason: str
    message: str
    cluster: str
    """The RayCluster's name, where there is one."""
    ready: int
    """Worker pods that are ready."""
    wanted: int
    """Worker pods that are to be."""
    created: str
    labels: Mapping[str, str]
    deleting: bool
    started: str = ""
    """When the present attempt began."""
    patience: int = 0
    """Seconds that its pods have to start; 0 where there is no limit."""
    failed: int = 0
    """Attempts that failed."""

    @classmethod
    def of(cls, job: Json) -> "Sweep":
        """The state that a RayJob's object holds."""
        metadata, status = job.get("metadata", {}), job.get("status") or {}
        workers = status.get("rayClusterStatus") or {}
        return cls(
            name=str(metadata.get("name", "")),
            uid=str(metadata.get("uid", "")),
            deployment=str(status.get("jobDeploymentStatus") or ""),
            job=str(status.get("jobStatus") or ""),
            reason=str(status.get("reason") or ""),
            message=str(status.get("message") or ""),
            cluster=str(status.get("rayClusterName") or ""),
            ready=int(workers.get("readyWorkerReplicas") or 0),
            wanted=int(workers.get("desiredWorkerReplicas") or 0),
            created=str(metadata.get("creationTimestamp", "")),
            labels=dict(metadata.get("labels") or {}),
            deleting="deletionTimestamp" in metadata,
            started=str(status.get("startTime") or ""),
            patience=int((job.get("spec") or {}).get("preRunningDeadlineSeconds") or 0),
            failed=int(status.get("failed") or 0),
        )

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.job == "STOPPED" or self.deployment in (
            "Complete",
            "Failed",
            "ValidationFailed",
        )

    @property
    def succeeded(self) -> bool:
        """Whether it ended, and well."""
        return self.deployment == "Complete" and self.job == "SUCCEEDED"

    @property
    def line(self) -> str:
        """The state in a few words."""
        if self.deleting:
            return "being cancelled"
        words = MEANING.get(self.deployment, self.deployment)
        if self.job == "STOPPED":
            words = "stopped"
        elif self.deployment == "Complete" and self.job != "SUCCEEDED":
            words = f"ended, but its driver {self.job or 'never reported a state'}"
        if not self.ended and self.wanted:
            words += f", {self.ready} of {self.wanted} workers ready"
        return words

    @property
    def why(self) -> str:
        """Reason and message of a bad end in a line; the driver's own last word if it had one."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        last_words = [line for line in lines if line.startswith("isoflop: ")] or lines
        parts = [
            self.reason,
            CAUSES.get(self.reason, ""),
            *(line.removeprefix("isoflop: ") for line in last_words[-1:]),
        ]
        return ": ".join(part for part in parts if part) or "KubeRay gives no reason"

    @property
    def failure(self) -> SweepFailed:
        """The error of a sweep that ended, and not well."""
        state = self.job if self.job == "STOPPED" else (self.deployment or self.job)
        outlook = "" if self.deployment == "ValidationFailed" else f"; {RESUMES}"
        return SweepFailed(f"{self.name} ended as {state}: {self.why}{outlook}")


def find(api: Api, namespace: str, name: str) -> Sweep:
    """A sweep by its own name, or the newest one of a study's name.

    Raises:
        KubernetesError: there is none.
    """
    job = api.find(RAY_JOBS, namespace, name)
    if job is not None:
        return Sweep.of(job)
    of_the_study = [s for s in sweeps(api, namespace) if s.labels.get(STUDY_LABEL) == name]
    if of_the_study:
        return max(of_the_study, key=lambda sweep: sweep.created)
    raise KubernetesError(
        f"no sweep is called {name!r} in namespace {namespace!r}; `isoflop status` lists all, "
        "--namespace selects another. The results of a sweep that was deleted are in MLflow: "
        "`isoflop "
        "board`"
    )


def sweeps(api: Api, namespace: str) -> list[Sweep]:
    """Every sweep of a namespace, by name."""
    jobs = api.items(RAY_JOBS, namespace, labels=f"{MANAGED_BY}={MANAGER}")
    return sorted((Sweep.of(job) for job in jobs), key=lambda sweep: sweep.name)
