"""What a process that trains or times networks asks of the machine that it runs on."""

import ctypes

import torch

NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""What processors call their bf16 products; the last is Arm's."""
_MALLOC = {
    -3: 1 << 30,  # M_MMAP_THRESHOLD, bytes: under it memory comes from the heap, and stays mapped
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: free heap is not given back
    -2: 64 << 20,  # M_TOP_PAD: the heap grows by this much more than it must
}


def tune_allocator() -> bool:
    """Makes glibc keep freed memory for the next activations; False where there is no glibc.

    A step frees and takes again the same large blocks; given back to the system each time, they
    cost a page fault per 4 KiB. Holds for the whole process and does not change any number; memory
    stays at its peak.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    taken = [mallopt(parameter, value) for parameter, value in _MALLOC.items()]
    return all(taken)


def native_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bf16 itself; where it does not, fp32 is faster."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(capabilities.get(name, False) for name in NATIVE_BF16)
