"""Files of arrays that belong to a result: what is not as it was written is no use."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anchorsfm.io.files import read_regular
from anchorsfm.io.store import digest, write_atomic
from anchorsfm.scene.errors import InputError

_TEXT, _SEAL = "settings", "digest"


def write_sealed(path: Path, kind: str, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and a text. Raises StorageError if the file cannot be written."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    write_atomic(path, _in_order(save(arrays, metadata={_TEXT: text, _SEAL: _seal(kind, text, arrays)})))


def read_sealed(path: Path, kind: str, remedy: str) -> tuple[str, dict[str, np.ndarray]] | None:
    """Text and arrays of a file; None if there is none.

    Raises InputError, with what to do about it (`remedy`), if it is damaged or of another kind.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load

    try:
        arrays = load(read_regular(path))
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        text = str(metadata.get(_TEXT, ""))
        if metadata.get(_SEAL) != _seal(kind, text, arrays):
            raise ValueError("not what was written")
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise damaged(path, remedy) from error
    return text, arrays


def damaged(path: Path, remedy: str) -> InputError:
    """What to say of a file that cannot be used. It has to go first: no command replaces what is not as written."""
    return InputError(f"{path} is damaged: move it away, then {remedy}")


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata in order: safetensors writes them in any, and equal results have equal bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _seal(kind: str, text: str, arrays: Mapping[str, np.ndarray]) -> str:
    return digest(kind, text, dict(sorted(arrays.items())))
