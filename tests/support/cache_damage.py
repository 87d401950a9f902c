"""Ways in which an entry of the cache can be damaged from outside."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file


def _cut(path: Path, _other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _cut_by_one(path: Path, _other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path, _other: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset % len(content)] ^= 16
    path.write_bytes(bytes(content))


def _flip_last_number(path: Path, _other: Path) -> None:
    _flip(path, -1)


def _flip_header(path: Path, _other: Path) -> None:
    _flip(path, 12)


def _flip_header_length(path: Path, _other: Path) -> None:
    _flip(path, 1)


def _swap(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def _rewrite(path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], *, seal: bool) -> None:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(change(arrays), path, metadata=metadata if seal else None)


def _with_nan(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: np.full_like(a, np.nan) if a.dtype.kind == "f" else np.zeros_like(a) for n, a in arrays.items()}


def _not_a_number(path: Path, _other: Path) -> None:
    _rewrite(path, _with_nan, seal=False)


def _not_a_number_under_the_old_digest(path: Path, _other: Path) -> None:
    _rewrite(path, _with_nan, seal=True)


def _array_missing(path: Path, _other: Path) -> None:
    _rewrite(path, lambda arrays: {name: arrays[name] for name in sorted(arrays)[1:]}, seal=True)


def _array_reshaped(path: Path, _other: Path) -> None:
    _rewrite(path, lambda arrays: {name: a.reshape(-1) for name, a in arrays.items()} | {"more": np.ones(1)}, seal=True)


def _without_digest(path: Path, _other: Path) -> None:
    _rewrite(path, lambda arrays: arrays, seal=False)


def _folder(path: Path, _other: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "notes.txt").write_text("the user's")


def _pipe(path: Path, _other: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _dangling(path: Path, _other: Path) -> None:
    path.unlink()
    path.symlink_to(path)


DAMAGE: dict[str, Callable[[Path, Path], None]] = {
    function.__name__.strip("_"): function
    for function in (
        _cut,
        _cut_by_one,
        _empty,
        _flip_last_number,
        _flip_header,
        _flip_header_length,
        _swap,
        _not_a_number,
        _not_a_number_under_the_old_digest,
        _array_missing,
        _array_reshaped,
        _without_digest,
        _folder,
        *([_pipe] if hasattr(os, "mkfifo") else []),
        _dangling,
    )
}
"""By name: damage the entry at a path; `swap` replaces it by a copy of the other path."""
