"""Surfaces with COLMAP's meshing.

Poisson: Kazhdan and Hoppe, "Screened Poisson surface reconstruction", TOG 2013. Delaunay: a labelling of the tetrahedra
between the points by what the cameras see through (Labatut et al., ICCV 2007); PyCOLMAP offers it only in builds with
CGAL.
"""

import math
import subprocess
import sys
from pathlib import Path

import pycolmap

from anchorsfm.io.layout import TEMPORARY_PREFIX
from anchorsfm.io.store import storage_error
from anchorsfm.scene.errors import InputError, StorageError

MIN_DEPTH, MAX_DEPTH = 6, 11
TRIM_LEVELS = 2
"""Surface that is supported by no more points than this many levels coarser have is cut off."""
_FUNCTIONS = {"poisson": "poisson_meshing", "delaunay": "sparse_delaunay_meshing"}


def check_mesh_method(method: str) -> None:
    """Raise InputError if this build of PyCOLMAP does not have a method."""
    if method != "none" and not hasattr(pycolmap, _FUNCTIONS[method]):
        offered = [name for name, function in _FUNCTIONS.items() if hasattr(pycolmap, function)]
        ways_out = f"use --cloud.mesh {offered[0]}" if offered else "leave --cloud.mesh out"
        raise InputError(f"--cloud.mesh {method} is not in this build of PyCOLMAP {pycolmap.__version__}: {ways_out}")


def poisson_mesh(cloud: Path, mesh: Path, num_points: int, *, num_threads: int = 1) -> None:
    """Write a coloured triangle mesh (PLY) of a cloud with normals (PLY).

    The octree is as deep as the points are dense: `num_points` of a surface lie about 1 / sqrt(num_points) apart. Parts
    that the points do not support are cut off. Raises StorageError if the mesh cannot be written.
    """
    depth = min(max(math.ceil(math.log2(max(num_points, 1)) / 2), MIN_DEPTH), MAX_DEPTH)
    _written(mesh, [_POISSON, str(cloud), str(depth), str(depth - TRIM_LEVELS), str(num_threads)])


def delaunay_mesh(model: Path, mesh: Path) -> None:
    """Write a triangle mesh (PLY) of the sparse points of a COLMAP model.

    Raises StorageError if the mesh cannot be written.
    """
    _written(mesh, [_DELAUNAY, str(model)])


_POISSON = """
import sys, pycolmap
mesh, cloud, depth, trim, threads = sys.argv[1:]
options = pycolmap.PoissonMeshingOptions()
options.depth, options.trim, options.num_threads = int(depth), float(trim), int(threads)
pycolmap.poisson_meshing(cloud, mesh, options)
"""
_DELAUNAY = """
import sys, pycolmap
mesh, model = sys.argv[1:]
pycolmap.sparse_delaunay_meshing(model, mesh)
"""


def _written(mesh: Path, program: list[str]) -> None:
    """Let a program fill a file beside `mesh`, and put it in place when it is complete.

    In a process of its own, because COLMAP's meshing does not raise errors: it ends the process.
    """
    temporary = mesh.with_name(f"{TEMPORARY_PREFIX}{mesh.name}")
    code, *arguments = program
    try:
        temporary.unlink(missing_ok=True)
        command = [sys.executable, "-c", code, str(temporary), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode != 0 or not _is_complete(temporary):
            raise StorageError(f"no surface could be made for {mesh}: the points are too few, or the disk is full")
        temporary.replace(mesh)
    except OSError as error:
        raise storage_error(mesh, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _is_complete(path: Path) -> bool:
    """Whether a binary PLY of triangles, as COLMAP writes it, has all its bytes and at least one triangle."""
    if not path.exists():
        return False
    header, found, body = path.read_bytes().partition(b"end_header\n")
    lines = [line.split() for line in header.decode("ascii", "replace").splitlines()]
    count = {line[1]: int(line[2]) for line in lines if line[:1] == ["element"]}
    vertex_bytes = sum(_BYTES[line[1]] for line in lines if line[:1] == ["property"] and line[1] != "list")
    triangle_bytes = sum(_BYTES[line[2]] + 3 * _BYTES[line[3]] for line in lines if line[1:2] == ["list"])
    faces = count.get("face", 0)
    return bool(found) and faces > 0 and len(body) >= count["vertex"] * vertex_bytes + faces * triangle_bytes


_BYTES = {"char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "float": 4, "double": 8}
