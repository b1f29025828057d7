"""Networks that start from trained weights: the names of others, shapes, and what is left over."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import METHODS
from methods.api import Method, Network, Task
from methods.data.load import load
from methods.errors import MethodError
from methods.training.layouts import plain
from methods.training.loop import train
from methods.training.recipe import Recipe
from methods.training.start import Weights, fill, fit, plain_weights

SMALL = Task("small", 3, 32, 32, 10)
PHOTOS = Task("photos", 3, 65, 65, 10)
BLOCK = {
    "expand.0": "conv_pw",
    "expand.1": "bn1",
    "filter.0": "conv_dw",
    "filter.1": "bn2",
    "project.0": "conv_pwl",
    "project.1": "bn3",
    "squeeze": "se.conv_reduce",
    "excite": "se.conv_expand",
    "router.linear": "routing_fn",
}
"""timm's names in an inverted bottleneck, as its source has them."""
FIRST = {"filter.0": "conv_dw", "filter.1": "bn1", "project.0": "conv_pw", "project.1": "bn2"}
AROUND = {
    "stem.0": "conv_stem",
    "stem.1": "bn1",
    "last.0": "conv_head",
    "last.1": "bn2",
    "head": "classifier",
}


def trained(method: Method, task: Task, seed: int = 1) -> Network:
    """A network whose norms are not those of a new one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net: Network = method.build(task)
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr,operator]
                part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr,operator]
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.1)
    return net.eval()


def weights(method: Method, task: Task, seed: int = 1) -> Weights:
    return plain_weights(method, task, trained(method, task, seed).state_dict(), "a file")


def logits(net: Network, task: Task) -> Tensor:
    images = torch.randn(4, task.channels, task.height, task.width, generator=_generator())
    with torch.no_grad():
        return net.eval()(images).logits


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def started(method: Method, task: Task, start: Weights) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net: Network = method.build(task)
    fill(net, method=method, weights=start)
    return net


def test_names_of_torchvision_and_timm_for_a_resnet() -> None:
    dense = METHODS["dense"].of({"family": "imagenet", "depth": 18, "width": 0.1})
    net = trained(dense, PHOTOS)
    theirs, starts = {}, (0, 2, 4, 6)
    for name, tensor in net.get_submodule("backbone").state_dict().items():
        part, *rest = name.split(".")
        if part == "blocks":
            stage = max(s for s, first in enumerate(starts) if first <= int(rest[0]))
            inner = ".".join(rest[1:]).replace("norm", "bn").replace("projection", "downsample")
            named = f"layer{stage + 1}.{int(rest[0]) - starts[stage]}.{inner}"
        else:
            named = {"stem.0": "conv1", "stem.1": "bn1"}.get(f"{part}.{rest[0]}", "fc") + (
                f".{rest[-1]}"
            )
        theirs[named] = tensor
    assert {"layer1.0.bn2.running_var", "layer4.1.conv2.weight", "fc.bias"} <= theirs.keys()
    start = Weights("resnet18", plain(theirs))
    assert torch.equal(logits(started(dense, PHOTOS, start), PHOTOS), logits(net, PHOTOS))
    assert fit(dense, PHOTOS, start).left == fit(dense, PHOTOS, start).unused == ()


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("mobilenet-v2", {}),
        ("efficientnet-b0", {}),
        ("efficientnet-b0", {"padding": "tensorflow", "experts": 2}),
    ],
)
@pytest.mark.parametrize("tensorflow", [True, False])
def test_names_of_timm_for_mobile_networks(
    family: str, fields: dict[str, Any], tensorflow: bool
) -> None:
    method = METHODS["condconv"].of({"family": family, "width": 0.1, "experts": 1, **fields})
    conditional = "experts" in fields
    net = trained(method, SMALL)
    theirs: dict[str, Tensor] = {}
    groups = [(1, 2, 3, 4, 3, 3, 1), (1, 2, 2, 3, 3, 4, 1)][family != "mobilenet-v2"]
    stage_of = [(s, i) for s, count in enumerate(groups) for i in range(count)]
    state = net.state_dict()
    for name, place in method.places(net).items():
        tensor = state[place]
        if name.startswith("blocks."):
            _, index, *rest = name.split(".")
            table = FIRST | {k: BLOCK[k] for k in ("squeeze", "excite")} if index == "0" else BLOCK
            inner, leaf = ".".join(rest[:-1]), rest[-1]
            if inner == "router.linear" and not conditional:
                continue
            if inner in ("squeeze", "excite") and leaf == "weight":
                tensor = tensor[:, :, None, None]
            stage, position = stage_of[int(index)]
            theirs[f"blocks.{stage}.{position}.{table[inner]}.{leaf}"] = tensor
        else:
            part, leaf = name.rsplit(".", 1)
            theirs[f"{AROUND[part]}.{leaf}"] = tensor
    if not tensorflow and not conditional:  # what they add to a variance is less
        for name in [n for n in theirs if n.endswith("running_var")]:
            theirs[name] = theirs[name] + (1e-3 - 1e-5)
    start = Weights("theirs", plain(theirs, tensorflow=tensorflow))
    fresh = started(method, SMALL, start)
    for part, other in zip(net.modules(), fresh.modules(), strict=True):
        if type(part).__name__ == "Router" and not conditional:  # they have none
            other.load_state_dict(part.state_dict())
    assert torch.allclose(logits(fresh, SMALL), logits(net, SMALL), atol=1e-5)


@pytest.mark.parametrize("method", ["dense", "resrep", "skipnet", "condconv"])
def test_a_start_computes_what_its_base_computes(method: str) -> None:
    base = METHODS["dense"].of({"depth": 8, "width": 0.5})
    begun = METHODS[method].of({"depth": 8, "width": 0.5})
    net = started(begun, SMALL, weights(base, SMALL))
    if method == "skipnet":
        net.gated = False  # type: ignore[assignment]
    if method == "condconv":  # routing weights are near 1/2 at first, and here at it
        for part in net.modules():
            if type(part).__name__ == "Router":
                nn.init.zeros_(part.linear.weight)  # type: ignore[union-attr,arg-type]
    assert torch.allclose(logits(net, SMALL), logits(trained(base, SMALL), SMALL), atol=1e-5)
    assert begun.plain() is not None


def test_the_experts_of_a_conditional_head_are_copies_too() -> None:
    method = METHODS["condconv"].of({"depth": 8, "head": True, "experts": 4, "placement": "all"})
    start = weights(METHODS["dense"].of({"depth": 8}), SMALL)
    net = started(method, SMALL, start)
    images = torch.randn(3, 64, generator=_generator())
    half = torch.full((3, 4), 0.5)
    plain_head = nn.functional.linear(
        images, start.tensors["head.weight"], start.tensors["head.bias"]
    )
    head = net.get_submodule("backbone.head.1.linear")
    assert torch.allclose(head(images, half), plain_head, atol=1e-5)
    assert all("router" in name for name in fit(method, SMALL, start).left)


@pytest.mark.parametrize("name", ["condconv", "condensenet", "dsnet", "resrep", "skipnet"])
def test_a_trained_network_starts_another_of_its_method(name: str) -> None:
    method = METHODS[name]()
    start = weights(method, SMALL)
    if name == "resrep":
        with pytest.raises(MethodError, match="belong nowhere"):  # its compactors
            fit(method, SMALL, start)
        return
    fits = fit(method, SMALL, start)
    assert not fits.left
    outside = ("gates.", "rate", "expected", "steps") if name == "skipnet" else ("stage",)
    assert all(each.startswith(outside) for each in fits.unused)


def test_other_classes_leave_the_head_as_it_was_and_are_told() -> None:
    dense = METHODS["dense"].of({"depth": 8})
    start = weights(dense, Task("other", 3, 32, 32, 7))
    fits = fit(dense, SMALL, start)
    assert fits.left == ("head.weight", "head.bias")
    assert "as initialised remain head.weight, head.bias" in str(fits)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        fresh = dense.build(SMALL)
    net = started(dense, SMALL, start)
    assert torch.equal(net.state_dict()["backbone.head.weight"], fresh.backbone.head.weight)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"depth": 14}, "lacks"),
        ({"depth": 8, "width": 0.5}, "for 8x3x3x3"),
        ({"depth": 8, "family": "cifar"}, ""),
    ],
)
def test_another_architecture_is_refused_and_nothing_is_changed(
    fields: dict[str, Any], words: str
) -> None:
    method = METHODS["skipnet"].of(fields)
    start = weights(METHODS["dense"].of({"depth": 8}), SMALL)
    net = method.build(SMALL)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    if not words:
        assert fill(net, method=method, weights=start).filled == len(start.tensors)
        return
    with pytest.raises(MethodError, match=words) as refused:
        fill(net, method=method, weights=start)
    assert "must have the architecture" in str(refused.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    "tensors", [{}, {"what": torch.zeros(3, 3)}, {"stem.0.weight": torch.zeros(2)}]
)
def test_weights_of_nothing_are_refused(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(MethodError, match="must have the architecture"):
        fit(METHODS["dense"].of({"depth": 8}), SMALL, Weights("nothing", tensors))


def test_equal_weights_have_equal_digests() -> None:
    dense = METHODS["dense"].of({"depth": 8})
    first, again, other = (weights(dense, SMALL, seed) for seed in (1, 1, 3))
    assert first.sha256 == again.sha256 != other.sha256
    half = {name: tensor.half() for name, tensor in first.tensors.items()}
    assert Weights("half", half).sha256 != first.sha256


def test_from_a_start_resrep_prunes_from_the_first_step() -> None:
    digits = load("digits")
    model = METHODS["resrep"]
    method = model.of({"depth": 8, "width": 0.5, **model.STARTED})
    assert [phase.name for phase in method.phases()] == ["prune"]
    start = weights(METHODS["dense"].of({"depth": 8, "width": 0.5}), digits.task)
    recipe = Recipe(epochs=1, batch_size=48, lr=1e-8)
    slow = method.model_copy(update={"prune_lr": 1e-8})
    epochs = list(
        train(slow, digits, recipe, seed=0, start=lambda net: fill(net, method=slow, weights=start))
    )
    weight = epochs[-1].net.state_dict()["backbone.stem.0.weight"]
    assert torch.allclose(weight, start.tensors["stem.0.weight"], atol=1e-4)
