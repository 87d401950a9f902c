"""In which precision the network runs, and how many pairs at once."""

import torch

from anchorsfm.networks.devices import inference_dtype, memory_bytes

MAX_BATCH = 16
"""Pairs: more are hardly faster, as a pair keeps a large GPU busy almost alone."""
_BYTES_PER_PIXEL = 6144
"""Memory a pair needs per pixel of one of its images, most of it in the heads, generously."""
_USABLE = 0.8
"""Share of a GPU's memory that is counted on."""


def trunk_dtype(device: torch.device, half_precision: str) -> torch.dtype:
    """Precision of the linear layers of encoder and decoders: float16 is what published networks were trained with.

    Raises InputError if half precision is asked for on a processor, which is slower in it.
    """
    return inference_dtype(device, half_precision, "mast3r.half-precision")


def automatic_batch(device: torch.device, num_pixels: int, reserved_bytes: int) -> int:
    """Pairs per batch for images of `num_pixels`, a power of two: 1 on a processor.

    It follows from the size of the GPU's memory, not from what is free of it, so that it is the same in every run;
    `reserved_bytes` are for weights and tokens.
    """
    if device.type == "cpu":
        return 1
    usable = _USABLE * memory_bytes(device) - reserved_bytes
    fitting = int(usable / (_BYTES_PER_PIXEL * num_pixels))
    return 1 << (min(max(fitting, 1), MAX_BATCH).bit_length() - 1)
