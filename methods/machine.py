"""Settings and facts of the machine that trains or times networks."""

import contextlib
import ctypes
import functools
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Processor capabilities for bf16 products; the last is Arm's."""
CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows control groups: all of version 2, or a folder per controller of version 1."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""The control groups of this process, a line for each hierarchy: number, controllers, path."""
_MALLOC = {
    -3: 1 << 30,  # M_MMAP_THRESHOLD, bytes: smaller blocks come from the heap and stay mapped
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: free heap is not returned to the system
    -2: 64 << 20,  # M_TOP_PAD: the heap grows by so much more than requested
}


def tune_allocator() -> bool:
    """Make glibc keep freed memory for the next activations; False without glibc.

    A step frees and allocates the same large blocks; returned to the system each time, they cost a
    page fault per 4 KiB. The setting holds for the whole process and changes no number; memory
    stays at its peak.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    accepted = [mallopt(parameter, value) for parameter, value in _MALLOC.items()]
    return all(accepted)


def avoid_faulty_kernels() -> None:
    """Keep oneDNN from a kernel that writes out of bounds; call before the first convolution.

    On processors with AVX2 and without AVX-512, the gradient of a strided 1x1 convolution with 2 to
    7 input channels corrupts the heap (oneDNN in torch 2.13). Its AVX kernels are correct and a
    sixth slower. `ONEDNN_MAX_CPU_ISA` is respected if it is set.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX")


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside the block torch computes with this many threads, as a trial's worker does."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def native_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 in hardware; if not, fp32 is faster."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(capabilities.get(name, False) for name in NATIVE_BF16)


def cores() -> int:
    """CPU cores that this process may keep busy, at least 1.

    A machine's cores, less those that the process is bound away from (`taskset`), and no more than
    the CPU quota of any control group that it is in (a container's limit, `systemd-run`, Slurm). Of
    a quota of 2.5 cores 2 are counted.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min(bound or 1, cpu_quota())))


def cpu_quota(groups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float:
    """Cores' worth of time that the control groups of a process give it; infinite without a limit.

    A group never has more than the groups that hold it. In a container the path of its group may be
    the host's; the container then sees its group at the top of its own tree.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = groups / "cpu" if controllers else groups
        names = [] if ".." in path else path.strip("/").split("/")
        quotas += [_quota(top.joinpath(*names[:depth])) for depth in range(len(names) + 1)]
    return min(quotas)


def device_name(device: str) -> str:
    """The hardware's name, for the record."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return _processor()


def _quota(group: Path) -> float:
    """The quota that stands in one group, in cores."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text()
        except OSError:
            return math.inf
    limited = quota not in ("max", "-1")
    return int(quota) / int(period) if limited else math.inf


@functools.cache
def _processor() -> str:
    """The processor's model from Linux, else from Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (models and models[0]) or platform.processor() or platform.machine()
