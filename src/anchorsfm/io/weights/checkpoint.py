"""Reading a .pth: it is a pickle, so torch's restricted unpickler reads it, which knows tensors and what is allowed."""

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anchorsfm.scene.errors import InputError


def read_checkpoint(path: Path, allowed: Sequence[type] = ()) -> Any:
    """What a .pth or .pt holds, on the CPU.

    Raises InputError if it is damaged, or holds more than tensors, plain values and instances of the classes `allowed`:
    such a file could run code and is not loaded.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} was not loaded: it is damaged or holds more than tensors and could run code "
            f"({_first_sentence(error)}); use a .safetensors file"
        ) from error
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise InputError(f"{path} is not a readable checkpoint ({_first_sentence(error)})") from error


def as_parameters(content: object, path: Path) -> dict[str, Tensor]:
    """A state dictionary. Raises InputError if that is not what the file holds."""
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} does not hold a dictionary of parameters")
    return {str(name): value for name, value in content.items()}


def _first_sentence(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return re.split(r"\n|(?<=[a-z])\. ", text)[0][:160]
