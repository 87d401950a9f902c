"""Where the network runs, in which precision, and how many pairs at once."""

import torch

from anchorsfm.scene.errors import InputError

MAX_BATCH = 16
"""Pairs: more are hardly faster, as a pair keeps a large GPU busy almost alone."""
_BYTES_PER_PIXEL = 6144
"""Memory a pair needs per pixel of one of its images, most of it in the heads, generously."""
_USABLE = 0.8
"""Share of a GPU's memory that is counted on."""


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


def trunk_dtype(device: torch.device, half_precision: str) -> torch.dtype:
    """Precision of the linear layers of encoder and decoders: float16 is what published networks were trained with.

    Raises InputError if half precision is asked for on a processor, which is slower in it.
    """
    if half_precision not in ("auto", "on", "off"):
        raise InputError(f"--mast3r.half-precision {half_precision}: choose one of auto, on, off")
    if half_precision == "on" and device.type == "cpu":
        raise InputError("--mast3r.half-precision on needs a GPU: use auto")
    wanted = half_precision == "on" or (half_precision == "auto" and device.type == "cuda")
    return torch.float16 if wanted else torch.float32


def automatic_batch(device: torch.device, num_pixels: int, reserved_bytes: int) -> int:
    """Pairs per batch for images of `num_pixels`, a power of two: 1 on a processor.

    It follows from the size of the GPU's memory, not from what is free of it, so that it is the same in every run;
    `reserved_bytes` are for weights and tokens.
    """
    if device.type == "cpu":
        return 1
    usable = _USABLE * _memory_bytes(device) - reserved_bytes
    fitting = int(usable / (_BYTES_PER_PIXEL * num_pixels))
    return 1 << (min(max(fitting, 1), MAX_BATCH).bit_length() - 1)


def release_memory(device: torch.device) -> None:
    """Give back what the allocator keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(torch.mps.recommended_max_memory())
