"""The static baseline: bounds, price and deployed form."""

import pytest
import torch
from jaxtyping import TypeCheckError

from methods.api import Task, cross_entropy
from methods.dense import Dense
from methods.errors import MethodError
from methods.macs import executed_macs

DIGITS = Task("digits", 1, 8, 8, 10)


def test_every_sample_costs_the_floor() -> None:
    method = Dense(depth=8, width=0.5)
    net = method.build(DIGITS).eval()
    images = torch.randn(3, 1, 8, 8)
    output = net(images)
    assert output.macs.tolist() == [method.floor(DIGITS)] * 3
    assert output.macs.dtype == torch.float64
    assert executed_macs(method.deploy(net), images) == 3 * method.floor(DIGITS)


def test_a_tensor_of_another_shape_than_the_signature_is_refused_under_pytest() -> None:
    with pytest.raises(TypeCheckError, match="images"):
        cross_entropy(Dense(depth=8).build(DIGITS), torch.zeros(3, 8, 8), torch.zeros(3).long())


def test_floor_is_the_golden_number() -> None:
    assert Dense(depth=20).floor(Task("cifar10", 3, 32, 32, 10)) == 40_813_184


def test_label_smoothing_reaches_the_loss() -> None:
    torch.manual_seed(0)
    net = Dense(depth=8, width=0.25).build(DIGITS).eval()
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    plain, smooth = (Dense().phases(amount)[0].loss(net, images, labels) for amount in (0.0, 0.2))
    expected = torch.nn.functional.cross_entropy(net(images).logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(smooth, expected)
    assert plain != smooth


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"depth": 21}, "6n\\+2 .* got 21; try 20 or 26"),
        ({"width": 0.0}, "width.*got 0.0"),
        ({"dept": 8}, "did you mean 'depth'"),
        ({"depth": 20, "family": "imagenet"}, "18, 34, 50"),
        ({"family": "resnet"}, "'cifar' or 'imagenet'"),
    ],
)
def test_bad_fields_are_refused(params: dict[str, object], says: str) -> None:
    with pytest.raises(MethodError, match=says):
        Dense.of(params)
