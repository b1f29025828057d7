"""The chart as Helm renders it, in a process of its own: Helm's library keeps threads.

`python tests/kube/chart/rendering.py --write` renders k8s/chart/rendered/. Without an option it
reads requests from standard input, and answers with JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
CHART = Path(__file__).parents[3] / "k8s" / "chart"
RENDERED: dict[str, Json] = {
    name: {"tracking": {"secrets": False}} for name in ("local", "production")
}
"""Value set -> what kubectl cannot have of it: random passwords."""
HEADERS = {
    "local": """\
# The chart with its own values, rendered by `make manifests` for kubectl without Helm; but with
# `tracking.secrets: false`, so that the Secrets are yours to create, as docs/cluster.md shows.
""",
    "production": """\
# The chart with production.yaml, rendered by `make manifests` for kubectl without Helm; but with
# `tracking.secrets: false`. Fill in what that file says, and create its Secrets, and with
# passwords of 12 characters or more three others, in isoflop-tracking:
#   mlflow-admin    username, password, and flask: a random text
#   team-isoflop    password
# and in isoflop:
#   isoflop-mlflow  uri       http://mlflow.isoflop-tracking.svc:5000
#                   username  isoflop
#                   password  that in team-isoflop
""",
}


def values_of(name: str) -> Json:
    """The values of a set that the chart ships, beside its defaults."""
    import helm_python

    file = CHART / f"{name}.yaml"
    return helm_python.values_from_yaml(file.read_text()) if file.exists() else {}


def merged(values: Json, more: Json) -> Json:
    """Values as `--values` twice merges them."""
    both = dict(values)
    for key, value in more.items():
        nested = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if nested else value
    return both


def answer(request: Json) -> Json:
    """What Helm lints, renders and prints, or its error."""
    import helm_python

    if request.get("steps"):
        return lived(request)
    values = merged(values_of(request.get("set", "")), request.get("values", {}))
    place = {"name": "isoflop", "namespace": request.get("namespace", "default")}
    try:
        lint = helm_python.lint(CHART, values, strict=True)
        folder = request.get("package")
        archive = helm_python.package(CHART, destination=folder) if folder else CHART
        with helm_python.Chart.load(archive) as chart:
            if kubeconfig := request.get("kubeconfig"):
                with helm_python.Config(kubeconfig_path=kubeconfig) as cluster:
                    files = cluster.render(chart, values, **place)
            else:
                files = chart.render(values, **place)
            others = [each["name"] for each in chart.files]
    except helm_python.HelmError as error:
        return {"error": str(error)}
    return {"lint": lint, "text": text(files), "notes": notes(files), "files": others}


def lived(request: Json) -> Json:
    """What the steps of a release install each, or Helm's error."""
    import helm_python

    settings = {"kubeconfig_path": request["kubeconfig"], "storage_driver": "memory"}
    name, manifests = request.get("name", "isoflop"), []
    given = {"values": request.get("values", {}), "namespace": request.get("namespace", "default")}
    with helm_python.Config(**settings) as cluster:
        try:
            for step in request["steps"]:
                if step == "uninstall":
                    cluster.uninstall(name)
                else:
                    manifests.append(getattr(cluster, step)(CHART, name, **given)["manifest"])
        except helm_python.HelmError as error:
            return {"error": str(error)}
    return {"manifests": manifests}


def text(files: dict[str, str]) -> str:
    """The objects as one file, the namespace first."""
    names = sorted(files, key=lambda name: (not name.endswith("namespace.yaml"), name))
    parts = [files[name].strip().removeprefix("---").strip() for name in names]
    yaml = [part for name, part in zip(names, parts, strict=True) if name.endswith(".yaml")]
    return "".join(f"---\n{part}\n" for part in yaml if part)


def notes(files: dict[str, str]) -> str:
    """What `helm install` prints at its end."""
    return next(part for name, part in files.items() if name.endswith("NOTES.txt"))


def golden_of(name: str, reply: Json) -> str:
    """A rendered file of the chart, from Helm's answer."""
    return HEADERS[name] + str(reply["text"])


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        for each, values in RENDERED.items():
            file = CHART / "rendered" / f"{each}.yaml"
            file.write_text(golden_of(each, answer({"set": each, "values": values})))
    else:
        json.dump([answer(each) for each in json.load(sys.stdin)], sys.stdout)
