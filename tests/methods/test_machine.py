"""The allocator keeps what is freed, and bf16 is known where the processor has it."""

import ctypes
import json
import logging
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Toy

from methods.data.load import load
from methods.machine import native_bf16, tune_allocator
from methods.training.loop import Recipe, train

ROOT = Path(__file__).parents[2]
FAULTS = """
import json, resource, torch
from methods.machine import tune_allocator
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(4 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before, tuned = faults(), tune_allocator()
faults()
print(json.dumps([before, tuned, faults()]))
"""


NARROW = """
import torch, torch.nn.functional as F
import methods.api
torch.set_num_threads(1)
for inputs in range(2, 8):
    for outputs in (4, 8, 32):
        images = torch.randn(32, inputs, 8, 8).contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(outputs, inputs, 1, 1, requires_grad=True)
        for _ in range(20):
            F.conv2d(images, kernel, stride=2).sum().backward()
        others = [torch.randn(size) for size in range(1, 3000, 37)]
"""


def test_narrow_strided_convolutions_train_without_a_crash() -> None:
    """oneDNN's AVX2 kernel corrupts the heap here."""
    subprocess.run([sys.executable, "-c", NARROW], check=True, cwd=ROOT)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_memory_that_is_freed_is_taken_again_without_a_page_fault() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, cwd=ROOT
    )
    before, tuned, after = json.loads(done.stdout)
    pages = 10 * (16 << 20) // resource.getpagesize()
    assert tuned
    assert before > pages // 1024  # huge pages of 2 MiB hide up to 512 of them
    assert after < before / 4


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_without_glibc_the_allocator_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def missing(_name: None) -> Any:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not tune_allocator()


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_bf16_is_native_where_the_processor_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert native_bf16(torch.device("cpu")) is native


@pytest.mark.skipif(platform.machine() != "x86_64", reason="no x86-64")
def test_the_system_says_the_same_of_this_processor() -> None:
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        pytest.skip("no /proc/cpuinfo")
    assert native_bf16(torch.device("cpu")) == bool(flags & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize(
    ("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_gpus_have_it_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert native_bf16(torch.device("cuda")) is native


@pytest.mark.parametrize(
    ("precision", "warned"), [("bf16", True), ("fp32", False), ("auto", False)]
)
def test_emulated_bf16_is_warned_of_and_never_chosen(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: Any,
    warned: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    recipe = Recipe(epochs=2, batch_size=256, precision=precision)
    with caplog.at_level(logging.WARNING):
        train(Toy(), load("digits"), recipe, seed=0)
    assert ("precision fp32 is faster" in caplog.text) is warned
