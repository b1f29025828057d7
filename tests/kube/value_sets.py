"""The value sets of the chart that every test of policies goes through."""

import re
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
SHIPPED = ("local", "production")
"""Those that the chart ships: its defaults, and production.yaml."""
PAGE = Path(__file__).parents[2] / "docs" / "clouds.md"
CLOUDS = {
    name: yaml.safe_load(text)
    for name, text in re.findall(
        r"```yaml\n# (gke|eks|openshift)\.yaml\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
}
"""Those of docs/clouds.md, on top of production.yaml."""
PRODUCTION = ("production", *CLOUDS)
"""Those with what production.yaml has."""
TEAM: Json = {
    "namespace": {"name": "team-a", "create": False},
    "tracking": {"namespace": "shared", "create": True, "secrets": True},
    "image": {
        "tag": "0.1.0-ray2.60.0-cuda",
        "digest": f"sha256:{'0' * 64}",
        "pullSecrets": ["pull"],
    },
    "clusterDomain": "corp.example.com",
    "submitters": [
        {"kind": "Group", "name": "vision"},
        {"kind": "ServiceAccount", "name": "ci", "namespace": "builds"},
        {"kind": "ServiceAccount", "name": "nightly"},
    ],
    "runs": {"accessModes": ["ReadWriteMany"], "storageClass": "nfs"},
    "quota": {
        "hard": {
            **{f"{kind}.cpu": "200" for kind in ("requests", "limits")},
            **{f"{kind}.memory": "800Gi" for kind in ("requests", "limits")},
            "requests.nvidia.com/gpu": "12",
            "requests.nvidia.com/mig-1g.5gb": "8",
        }
    },
    "network": {
        "dns": ["10.43.0.10/32"],
        "https": ["10.8.0.0/16", "::/0"],
        "operator": "kuberay-system",
        "ingress": "gateway",
    },
    "mlflow": {
        "secret": "tracking",
        "auth": {"create": True, "permission": "NO_PERMISSIONS"},
        "hosts": ["mlflow.example.com", "mlflow.example.com:8443"],
        "accountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/mlflow"},
        "artifacts": {"storageClass": "fast"},
    },
    "postgres": {"storageClass": "fast", "size": "20Gi"},
    "pods": {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "tracking",
    },
    "queue": {
        "create": True,
        "name": "vision",
        "quotas": {"nvidia.com/gpu": None},
        "flavors": [
            {
                "name": "a100",
                "nodeLabels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
                "quotas": {"nvidia.com/gpu": "4"},
                "borrowing": {"nvidia.com/gpu": "2"},
            },
            {
                "name": "l4",
                "nodeLabels": {"nvidia.com/gpu.product": "NVIDIA-L4"},
                "quotas": {"nvidia.com/gpu": "4"},
                "borrowing": {"nvidia.com/gpu": "2"},
            },
            {
                "name": "a100-mig",
                "nodeLabels": {"nvidia.com/mig.config": "all-1g.5gb"},
                "quotas": {"nvidia.com/mig-1g.5gb": "4"},
                "borrowing": {"nvidia.com/mig-1g.5gb": "4"},
            },
        ],
        "cohort": "research",
        "borrowing": {"cpu": "50", "memory": "200Gi"},
        "reclaim": True,
    },
    "monitoring": {"create": True, "namespace": "prometheus", "labels": {"release": "prometheus"}},
}
"""A namespace of a team, with most values other than the defaults."""
SECOND: Json = {
    **{name: TEAM[name] for name in ("image", "runs", "quota", "network")},
    "namespace": {"name": "team-b"},
    "tracking": {"namespace": "shared", "create": False},
    "submitters": [{"kind": "Group", "name": "speech"}],
    "mlflow": {name: TEAM["mlflow"][name] for name in ("secret", "auth")},
    "queue": {**TEAM["queue"], "createFlavors": False},
}
"""Another team, which shares the first one's MLflow, database and cohort."""
TOGETHER: Json = {"tracking": {"namespace": "isoflop"}}
"""All in one namespace, as earlier charts had it."""
BARE: Json = {
    "namespace": {"create": False},
    "runs": {"create": False},
    "quota": {"create": False},
    "limits": {"create": False},
    "network": {"https": []},
    "mlflow": {"uriSecret": False, "artifacts": {"create": False}},
    "postgres": {"create": False},
}
"""As little as the chart can install."""
SETS: dict[str, Json] = {
    "local": {},
    "production": {"set": "production"},
    "team": {"values": TEAM},
    "bare": {"values": BARE},
    "second": {"values": SECOND},
    "together": {"values": TOGETHER},
    **{name: {"set": "production", "values": values} for name, values in CLOUDS.items()},
}
"""Name -> what Helm is given."""
SPACES = dict.fromkeys(SETS, "isoflop") | {"team": "team-a", "second": "team-b"}
"""Value set -> the namespace of its sweeps."""
TRACKING = dict.fromkeys(SETS, "isoflop-tracking")
TRACKING |= {"team": "shared", "second": "shared", "together": "isoflop"}
"""Value set -> the namespace of its MLflow."""
