"""Coloured point clouds as binary PLY, which MeshLab, CloudCompare, Open3D and splatting trainers read."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.io.store import write_atomic


def write_ply(
    path: Path,
    xyz: Float[np.ndarray, "point 3"],
    rgb: UInt8[np.ndarray, "point 3"],
    *,
    normal: Float[np.ndarray, "point 3"] | None = None,
    confidence: Float[np.ndarray, "point"] | None = None,
) -> None:
    """Write vertices x, y, z, nx, ny, nz (float32), red, green, blue (uint8), confidence (float32); little endian.

    Normals and confidence are left out if not given. Raises StorageError if the file cannot be written.
    """
    columns: list[tuple[str, str, np.ndarray]] = [(axis, "float", xyz[:, k]) for k, axis in enumerate("xyz")]
    if normal is not None:
        columns += [(f"n{axis}", "float", normal[:, k]) for k, axis in enumerate("xyz")]
    columns += [(name, "uchar", rgb[:, k]) for k, name in enumerate(("red", "green", "blue"))]
    if confidence is not None:
        columns.append(("confidence", "float", confidence))
    vertex = np.empty(len(xyz), dtype=[(name, _TYPES[kind]) for name, kind, _ in columns])
    for name, _, values in columns:
        vertex[name] = values
    properties = [f"property {kind} {name}" for name, kind, _ in columns]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}", *properties, "end_header", ""]
    write_atomic(path, "\n".join(header).encode() + vertex.tobytes())


_TYPES = {"float": "<f4", "uchar": "u1"}
"""PLY's names of types, and numpy's."""
