"""A mistake is one line: file, line, what must hold, what was found, what to write."""
# ruff: noqa: E501  # a mistake a line

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isoflop
from methods.errors import IsoflopError, KubernetesError, StudyError
from methods.names import SYNONYMS, similar
from methods.training.recipe import Recipe
from methods.values import shown
from orchestrator.kube import cluster
from orchestrator.study.file import Study, load
from orchestrator.study.sections import ConfirmPlan, Resources, SearchPlan
from orchestrator.study.space import spaces

GOOD = """\
name: tiny
data: digits
budgets: [0.5, 1]
recipe:
  epochs: 3
  lr: {low: 1e-3, high: 1e-1, log: true}
methods:
  dense:
    width: {choices: [0.25, 0.5]}
    depth: 8
"""
RAW = ("Input should", "validation error", "pydantic", "type=", "Traceback", "Value error")
"""Words of pydantic's that no user should read."""


def checked(tmp_path: Path, text: str) -> Study:
    """A study after all checks that need no data."""
    path = tmp_path / "a.yaml"
    path.write_text(text)
    study = load(path)
    spaces(study)
    return study


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(IsoflopError) as caught:
        checked(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in RAW), message
    return message.removeprefix(f"{tmp_path / 'a.yaml'}:")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        # numbers that are none
        ("depth: 8", "depth: yes", "10: method 'dense': Dense.depth must be a whole number, but got 'yes'"),
        ("depth: 8", "depth: true", "10: method 'dense': Dense.depth must be a whole number, but got true"),
        ("depth: 8", "depth: '8'", "10: method 'dense': Dense.depth must be a whole number, but got '8'; write 8, without quotes"),
        ("depth: 8", "depth: 8.5", "10: method 'dense': Dense.depth must be a whole number, but got 8.5"),
        ("[0.25, 0.5]", "[0.25, true]", "9: method 'dense': Dense.width must be a number, but got true"),
        ("[0.5, 1]", "[0.5, false]", "3: budgets must be a number, but got false"),
        ("[0.5, 1]", "[0.5, 1_000]", "3: budgets must be a number, but got '1_000'; write 1000, without quotes"),
        ("epochs: 3", "epochs: on", "5: Recipe.epochs must be a whole number, but got 'on'"),
        ("epochs: 3", "epochs: 3\n  nesterov: yes", "6: Recipe.nesterov must be true or false, but got 'yes'; write true"),
        ("epochs: 3", "epochs: 3\n  augment: 0", "6: Recipe.augment must be true or false, but got 0; write false"),
        ("log: true", "log: yes", "6: recipe.lr.log must be true or false, but got 'yes'; write true"),
        ("budgets", "seed: 1:30\nbudgets", "3: seed must be a whole number, but got '1:30'"),
        ("budgets", "resources: {timeout: 02:00}\nbudgets", "3: resources.timeout must be a number"),
        ("budgets", "resources: {cpu: true}\nbudgets", "3: resources.cpu must be a number, but got true"),
        ("budgets", "resources: {retries: no}\nbudgets", "3: resources.retries must be a whole number, but got 'no'"),
        ("budgets", "targets: [yes]\nbudgets", "3: targets must be a number, but got 'yes'"),
        ("budgets", "version: true\nbudgets", "3: version must be a whole number, but got true"),
        # bounds
        ("budgets", f"search: {{trials: {10**30}}}\nbudgets", "3: search.trials must be at most"),
        ("budgets", "search: {trials: 1000001}\nbudgets", "3: search.trials must be at most 1000000, but got 1000001"),
        ("budgets", "search: {trials: 0}\nbudgets", "3: search.trials must be at least 1, but got 0"),
        ("budgets", "search: {repeats: 0}\nbudgets", "3: search.repeats must be at least 1, but got 0"),
        ("budgets", "search: {repeats: 1001}\nbudgets", "3: search.repeats must be at most 1000, but got 1001"),
        ("budgets", "search:\n  trials: 3\n  repeats: 5\nbudgets", "4: search: each of 5 `repeats` must have at least 4 `trials`, but got 3; write `trials: 8`, say, or delete `repeats`"),
        ("budgets", "search:\n  repeats: 5\n  trials: 5\n  points: {dense: [{width: 0.5}, {}, {}, {}]}\nbudgets", "5: search: each of 5 repeats must choose separate configurations, but all 5 `trials` of dense are fixed in advance"),
        ("budgets", "search: {repeats: 5}\nconfirm:\n  seeds: 3\n  race: true\n  budget: 1\nbudgets", "6: confirm: `race` adds whole searches of 20 trials each within a `budget`, which must be at least 2 over all methods, but got 1; write `budget: 6`, say"),
        ("budgets", "search:\n  trials: 8\n  repeats: 2\nconfirm: {race: true, budget: 4}\nbudgets", "5: search: `race` estimates the spread between the searches of a method and needs `repeats` to be at least 3, but got 2; write `repeats: 5`, say"),
        ("budgets", "search: {repeat: 5}\nbudgets", "did you mean 'repeats'?"),
        ("budgets", "search: {seconds: 1e300}\nbudgets", "3: search.seconds must be at most"),
        ("budgets", "confirm: {seeds: 99999999}\nbudgets", "3: confirm.seeds must be at most 10000"),
        ("budgets", f"seed: {2**63}\nbudgets", "3: seed must be at most"),
        ("[0.5, 1]", "[0.5, 1e300]", "3: budgets.1 must be at most"),
        ("[0.5, 1]", "[0.5, 0]", "3: budgets.1 must be above 0, but got 0"),
        ("epochs: 3", "epochs: 10000000", "5: Recipe.epochs must be at most 1000000, but got 10000000"),
        ("lr: {low: 1e-3, high: 1e-1", "lr: {low: 1e-3, high: 1e300", "6: Recipe.lr must be at most"),
        # ranges
        ("depth: 8", "depth: {low: 8, high: 14, step: 0}", "10: methods.dense.depth: `step` must be above 0, but got 0"),
        ("depth: 8", "depth: {low: 8, high: 14, step: -6}", "10: methods.dense.depth: `step` must be above 0"),
        ("depth: 8", "depth: {low: 8, high: 14, step: 0.5}", "10: depth must have whole numbers"),
        ("depth: 8", "depth: {low: 8.5, high: 14}", "10: depth must have whole numbers"),
        ("high: 1e-1, log: true", "high: 1e-1, step: 1e-30", "6: recipe.lr: `step` must cut a range into at most"),
        ("high: 1e-1, log: true", "high: 1e-1, log: true, step: 0.1", "6: recipe.lr: a range is either log or stepped"),
        ("low: 1e-3, high", "low: 1, high", "6: recipe.lr: `low <= high` must hold, but got (low=1, high=0.1)"),
        ("low: 1e-3, high", "low: 0, high", "6: recipe.lr: a log range must start above 0, but got low=0"),
        ("low: 1e-3, high: 1e-1", "low: 1e-3", "6: recipe.lr.high must be given, but is missing"),
        ("low: 1e-3, high: 1e-1, log", "min: 1e-3, max: 1e-1, log", "6: recipe.lr.min is no field of a study; did you mean 'low'?"),
        ("{choices: [0.25, 0.5]}", "{values: [0.25, 0.5]}", "9: methods.dense.width.values is no field of a study; did you mean"),
        ("[0.25, 0.5]", "[]", "9: methods.dense.width.choices must have at least 1 entries, but got []"),
        ("[0.25, 0.5]", "[0.25, 0.5, 0.25]", "9: methods.dense.width: `choices` must differ, but got 0.25 twice"),
        ("[0.25, 0.5]", "0.25", "9: methods.dense.width.choices must be a list, but got 0.25; write [0.25]"),
        ("depth: 8", "depth: [8, 14]", "10: methods.dense.depth must be one value, a range or choices, but got [8, 14]; write {choices: [8, 14]}"),
        ("epochs: 3", "epochs: [3, 4]", "5: recipe.epochs must be one value, a range or choices, but got [3, 4]; write {choices: [3, 4]}"),
        ("depth: 8", "depth:", "10: methods.dense.depth must be one value, a range or choices, but got nothing; leave it out"),
        # shapes
        ("[0.5, 1]", "0.5", "3: budgets must be a list, but got 0.5; write [0.5]"),
        ("[0.5, 1]", "[1, 0.5]", "3: budgets must rise, without repeats, but got [1.0, 0.5]; write [0.5, 1.0]"),
        ("name: tiny", "name: 12", '1: name must be text, but got a number or a flag; write "12"'),
        ("data: digits", "data: 2e3", '2: data must be text, but got a number or a flag; write "2e3"'),
        ("data: digits", "data:", "2: data must be text, but got nothing"),
        ("data: digits", "data: /data/" + "x" * 300, "2: data must be a name or a path"),
        ("name: tiny", f"name: {'n' * 60}", "1: name must be lower-case letters"),
        ("data: digits\n", "", "1: data must be given, but is missing; write `data: digits`"),
        ("budgets", "search: 20\nbudgets", "3: search must hold `field: value` pairs, but got 20"),
        ("budgets", "search: [1, 2]\nbudgets", "3: search must hold `field: value` pairs"),
        ("budgets", "search: {sampler: grid}\nbudgets", "3: search.sampler must be 'auto', 'ehvi'"),
        ("budgets", "search: {sampler: TPE}\nbudgets", "did you mean 'tpe'?"),
        ("budgets", "search: {points: {dense: {depth: 8}}}\nbudgets", "3: search.points.dense must be a list"),
        ("budgets", "search: {points: {densee: [{depth: 8}]}}\nbudgets", "3: search.points: 'densee' is no method of this study; did you mean 'dense'?"),
        ("budgets", "search: {points: {dense: [{width: 3}]}}\nbudgets", "3: search.points.dense: width must lie in the searched range, 0.25 | 0.5, but got 3"),
        ("budgets", "primary: 3\nbudgets", "3: `primary` must be one of the budgets [0.5, 1.0], but got 3"),
        # names
        ("budgets: ", "flops: ", "3: flops is no field of a study; did you mean 'budgets'?"),
        ("budgets", "device: cuda\nbudgets", "3: device is no field of a study; gpu belongs to `resources`; write `resources: {gpu: ...}`"),
        ("budgets", "gpus: 1\nbudgets", "gpu belongs to `resources`"),
        ("budgets", "lr: 0.1\nbudgets", "3: lr is no field of a study; lr belongs to `recipe`; write `recipe: {lr: ...}`"),
        ("budgets", "learning-rate: 0.1\nbudgets", "lr belongs to `recipe`"),
        ("budgets", "trials: 3\nbudgets", "trials belongs to `search`"),
        ("budgets", "seeds: 3\nbudgets", "seeds belongs to `confirm`"),
        ("budgets", "search: {n_trials: 3}\nbudgets", "3: search.n_trials is no field of a study; did you mean 'trials'?"),
        ("budgets", "resources: {gpus: 1}\nbudgets", "3: resources.gpus is no field of a study; did you mean 'gpu'?"),
        ("dense:", "resnet:", "8: no method is called 'resnet'; did you mean 'dense' or 'resrep'?"),
        ("dense:", "ResNet50:", "8: no method is called 'ResNet50'; did you mean 'dense' or 'resrep'?"),
        ("dense:", "mobilenet:", "did you mean 'dsnet'?"),
        ("dense:", "Dense:", "did you mean 'dense'?"),
        ("dense:", "Cond-Conv:", "did you mean 'condconv'?"),
        ("depth: 8", "lr: 0.1", "10: method 'dense' has no field 'lr'; all methods share it; write `recipe: {lr: ...}`"),
        ("depth: 8", "layers: 8", "10: method 'dense' has no field 'layers'; valid: depth, width, family"),
        ("epochs: 3", "learning_rate: 3", "5: the recipe has no field 'learning_rate'; did you mean 'lr'?"),
        ("dense:", f"{'d' * 100}:\n    method: dense\n  dense:", "a control's name must have letters and dashes only, 47 at most"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in GOOD
    message = refusal(tmp_path, GOOD.replace(old, new, 1))
    assert sentence in message
    assert message[0].isdigit()


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ("methods: [dense, skipnet]", "write {dense: {}, skipnet: {}}"),
        ("methods: dense", "write {dense: {}}"),
        ("methods:\n  - dense", "write {dense: {}}"),
        ("methods: {}", "must have at least 1 entries"),
        ("methods: {dense: 3}", "methods.dense must hold `field: value` pairs, but got 3"),
        ("methods: {dense: [8]}", "methods.dense must hold `field: value` pairs, but got [8]"),
        ("methods:", "methods must hold `field: value` pairs, but got nothing"),
    ],
)
def test_methods_that_are_no_fields_are_shown_as_fields(
    tmp_path: Path, methods: str, sentence: str
) -> None:
    assert sentence in refusal(tmp_path, GOOD[: GOOD.index("methods:")] + methods)


def test_nothing_behind_a_colon_means_the_defaults(tmp_path: Path) -> None:
    head = GOOD[: GOOD.index("recipe:")]
    empty = head + "recipe:\nsearch:\nconfirm: ~\nresources:\nmethods:\n  dense:\n  resrep: null\n"
    full = checked(tmp_path, head + "methods: {dense: {}, resrep: {}}\n")
    assert checked(tmp_path, empty) == full
    assert checked(tmp_path, empty).hash == full.hash
    assert (full.search, full.confirm, full.resources) == (
        SearchPlan(),
        ConfirmPlan(),
        Resources(),
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"budgets": (0.5, np.float32(1))}, ""),
        ({"data": Path("digits"), "seed": np.int64(3)}, ""),
        ({"methods": {"dense": None}}, ""),
        ({"seed": 10**5000}, "seed must be at most 9223372036854775807 in size"),
        ({"seed": True}, "seed must be a whole number, but got true"),
        ({"budgets": ["0.5"]}, "budgets must be a number, but got '0.5'"),
        ({"budgets": [float("inf")]}, "budgets.0 must be"),
        ({"budgets": {1: 2}}, "budgets must be a list"),
        ({"methods": {3: {}}}, "must have field names that are text, but got 3"),
        ({"methods": ["dense"]}, "write {dense: {}}"),
        ({"devise": "cuda", "seed": 1}, "devise is no field of a study"),
        ({"data": "a\0b"}, "control character"),
        ({"methods": {"dense": {"width": object()}}}, "must be one value, a range or choices"),
        ({"methods": {"dense": {"width": {"low": 0, "high": 10**400}}}}, "must be at most"),
    ],
)  # fmt: skip
def test_python_s_mappings_are_read_alike(fields: Mapping[str, Any], sentence: str) -> None:
    usual = {"name": "mine", "data": "digits", "budgets": [0.5], "methods": {"dense": {}}}
    if not sentence:
        assert isoflop.Study(**{**usual, **fields}).hash
        return
    with pytest.raises(StudyError) as caught:
        isoflop.Study(**{**usual, **fields})
    assert sentence in str(caught.value)
    assert not any(word in str(caught.value) for word in RAW)
    assert "\n" not in str(caught.value)


def test_a_mapping_that_holds_itself_is_refused() -> None:
    methods: dict[str, Any] = {"dense": {}}
    methods["dense"]["width"] = methods
    with pytest.raises(StudyError, match="at most 16 deep"):
        isoflop.Study(name="mine", data="digits", budgets=[1], methods=methods)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("replicas: 1", "replicas: yes", ":6: workers.0.replicas must be a whole number, but got 'yes'"),
        ("replicas: 1", "replicas: 1, replicas: 2", ":6: workers.0.replicas must appear once"),
        ("replicas: 1", "replica: 1", ":6: workers.0.replica is no field of a cluster; did you mean 'replicas'?"),
        ("pvc://runs", "s3://runs", ":3: storage must be pvc://CLAIM" ),
        ("memory: 4Gi", "memory: 4 GB", ":6: workers.0.memory must be a number and Mi, Gi or Ti, as in 6Gi, but got '4 GB'"),
        ("mlflow:", "retries: 010\nmlflow:", ":4: a number must not begin with 0"),
        ("namespace: lab", "namespace: My_Lab", ":1: namespace must be lower-case letters"),
        ("namespace: lab", "gpu: 1", ":1: gpu is no field of a cluster; gpu belongs to `trial`"),
    ],
)  # fmt: skip
def test_a_cluster_file_is_read_alike(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    good = (
        "namespace: lab\nimage: registry/isoflop:1-ray2.60.0\nstorage: pvc://runs\n"
        "mlflow: {secret: mlflow}\nworkers:\n  - {name: cpu, replicas: 1, cpu: 4, memory: 4Gi}\n"
    )
    path = tmp_path / "cluster.yaml"
    path.write_text(good)
    assert cluster.load(path).workers[0].replicas == 1
    path.write_text(good.replace(old, new))
    with pytest.raises(KubernetesError) as caught:
        cluster.load(path)
    assert sentence in str(caught.value)
    assert not any(word in str(caught.value) for word in RAW)


def test_every_synonym_is_of_a_name_that_exists() -> None:
    fields = [model.model_fields for model in (Study, SearchPlan, ConfirmPlan, Resources, Recipe)]
    known = {field.alias or name for part in fields for name, field in part.items()}
    known |= set(isoflop.METHODS) | {"mnist5k", "cifar10", "cifar100", "imagenet"}
    known |= {"low", "high", "choices", "step", "log", "ehvi", "sobol"}
    assert set(SYNONYMS) <= known


@pytest.mark.parametrize(
    ("name", "valid", "names"),
    [
        ("CIFAR-10", ["digits", "cifar10", "cifar100"], ["cifar10"]),
        ("cifar", ["digits", "cifar10", "cifar100"], ["cifar10", "cifar100"]),
        ("MNIST", ["digits", "mnist5k"], ["mnist5k"]),
        ("Tiny ImageNet", ["imagenet", "tiny-imagenet"], ["tiny-imagenet"]),
        ("qwertz", ["digits", "mnist5k"], []),
        ("n" * 100_000, ["digits"], []),
    ],
)
def test_names_of_other_tools_lead_to_ours(name: str, valid: list[str], names: list[str]) -> None:
    assert similar(name, valid) == names


def test_a_value_is_shown_short_and_on_one_line() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    for value in (deep, "x" * 10_000, 10**6000, "a\nb", {"a": [1] * 1000}):
        assert len(shown(value)) < 200
        assert "\n" not in shown(value)
    assert [shown(value) for value in (True, None, 0.5, "a")] == ["true", "nothing", "0.5", "'a'"]
