"""Coloured point clouds as binary PLY, which MeshLab, CloudCompare and splatting trainers read."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.io.store import write_atomic


def write_ply(path: Path, xyz: Float[np.ndarray, "point 3"], rgb: UInt8[np.ndarray, "point 3"]) -> None:
    """Write vertices x, y, z (float32), red, green, blue (uint8); little endian.

    Raises StorageError if the file cannot be written.
    """
    vertex = np.empty(len(xyz), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertex["xyz"], vertex["rgb"] = xyz, rgb
    names = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}", *names, "end_header", ""]
    write_atomic(path, "\n".join(header).encode() + vertex.tobytes())
