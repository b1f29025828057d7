"""Other exact forms of a plain convolution: dense if it has groups, spread if it is narrow.

Processors multiply 8 or 16 outputs at a time. A convolution with fewer outputs leaves most of the
lanes idle. Its spread form computes the outputs of 2 or 4 neighbouring pixels at once, with a wider
kernel: more products, in less time.
"""

from torch import Tensor, nn

from methods.api import Changed, Features
from methods.fold import like

LANES = 16
"""Maximal number of outputs of a spread convolution."""


class Spread(nn.Module):
    """A convolution of stride 1 that computes `pixels` neighbours of a row at once."""

    def __init__(self, conv: nn.Conv2d, pixels: int) -> None:
        super().__init__()
        self.outputs = conv.out_channels
        kernel = conv.weight.detach()
        wide = kernel.shape[3] + pixels - 1
        places = kernel.new_zeros(pixels, *kernel.shape[:3], wide)
        for pixel, place in enumerate(places):
            place[..., pixel : pixel + kernel.shape[3]] = kernel
        bias = None if conv.bias is None else conv.bias.detach().repeat(pixels)
        self.conv = like(conv, places.flatten(0, 1), bias, (1, pixels))

    def forward(self, features: Features) -> Changed:
        spread: Tensor = self.conv(features).permute(0, 2, 3, 1)  # batch height width/n n*outputs
        return spread.reshape(*spread.shape[:2], -1, self.outputs).permute(0, 3, 1, 2)


def has_forms(conv: nn.Conv2d) -> bool:
    """Whether a convolution has more than one form for some inputs."""
    return 1 < conv.groups < conv.in_channels or _narrow(conv)


def convolution_forms(conv: nn.Conv2d, features: Features) -> dict[str, nn.Module]:
    """The convolution itself, dense with zeros between groups, and spread over 2 or 4 pixels."""
    forms: dict[str, nn.Module] = {"plain": conv}
    whole = conv
    if 1 < conv.groups < conv.in_channels:
        whole = forms["dense"] = _ungrouped(conv)
    if _narrow(whole) and not features.is_cuda:
        for pixels in (2, 4):
            if pixels * conv.out_channels <= LANES and features.shape[3] % pixels == 0:
                forms[f"spread/{pixels}"] = Spread(whole, pixels)
    return forms


def _narrow(conv: nn.Conv2d) -> bool:
    """Whether it can be spread: it has few outputs and preserves the size of the map."""
    same = tuple(size // 2 for size in conv.kernel_size)
    plain = conv.groups == 1 and conv.stride == conv.dilation == (1, 1) and conv.padding == same
    return plain and conv.kernel_size[1] % 2 == 1 and 2 * conv.out_channels <= LANES


def _ungrouped(conv: nn.Conv2d) -> nn.Conv2d:
    kernel = conv.weight.detach()
    whole = kernel.new_zeros(conv.out_channels, conv.in_channels, *conv.kernel_size)
    inputs = kernel.shape[1]
    blocks = zip(kernel.chunk(conv.groups), whole.chunk(conv.groups), strict=True)
    for group, (block, rows) in enumerate(blocks):
        rows[:, group * inputs : (group + 1) * inputs] = block
    return like(conv, whole, conv.bias)
