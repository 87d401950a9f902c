"""Where networks run, and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from anchorsfm.scene.errors import InputError


def resolve_device(name: str) -> torch.device:
    """`auto` takes the best there is. Raises InputError for a device that is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if name not in available:
        raise InputError(f"--device {name}: choose one of auto, {', '.join(available)}")
    if not available[name]:
        kind = {"cuda": "CUDA GPU", "mps": "Apple GPU"}[name]
        raise InputError(
            f"--device {name}: PyTorch {torch.__version__} finds no {kind}; use --device auto or cpu, "
            "or install a PyTorch and a driver that support it"
        )
    return torch.device(name)


def inference_dtype(device: torch.device, half_precision: str, setting: str) -> torch.dtype:
    """Precision that `auto`, `on` or `off` mean: auto is float16 on CUDA GPUs.

    Raises InputError, naming the setting, if half precision is asked for on a processor, which is slower in it.
    """
    if half_precision not in ("auto", "on", "off"):
        raise InputError(f"--{setting} {half_precision}: choose one of auto, on, off")
    if half_precision == "on" and device.type == "cpu":
        raise InputError(f"--{setting} on needs a GPU: use auto")
    wanted = half_precision == "on" or (half_precision == "auto" and device.type == "cuda")
    return torch.float16 if wanted else torch.float32


@contextmanager
def inference() -> Iterator[None]:
    """No gradients, and what is said to be in float32 is: convolutions on a CUDA GPU have ten bits of precision unless
    that is switched off (TensorFloat-32; it made points of MASt3R's heads 500 times less exact than on a processor)."""
    cudnn = torch.backends.cudnn
    exact = cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )
    with torch.inference_mode(), exact:
        yield


def release_memory(device: torch.device) -> None:
    """Give back what the allocator keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def memory_bytes(device: torch.device) -> int:
    """Of a GPU, all of it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(torch.mps.recommended_max_memory())
