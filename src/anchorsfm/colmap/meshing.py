"""Surfaces with COLMAP's meshing.

Poisson: Kazhdan and Hoppe, "Screened Poisson surface reconstruction", TOG 2013. Delaunay: a labelling of the tetrahedra
between the points by what the cameras see through (Labatut et al., ICCV 2007); PyCOLMAP offers it only in builds with
CGAL.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pycolmap

from anchorsfm.io.store import TEMPORARY_PREFIX, storage_error
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
    options = pycolmap.PoissonMeshingOptions()
    options.depth = min(max(math.ceil(math.log2(max(num_points, 1)) / 2), MIN_DEPTH), MAX_DEPTH)
    options.trim = options.depth - TRIM_LEVELS
    options.num_threads = num_threads
    _written(mesh, lambda path: pycolmap.poisson_meshing(str(cloud), str(path), options))


def delaunay_mesh(model: Path, mesh: Path) -> None:
    """Write a triangle mesh (PLY) of the sparse points of a COLMAP model.

    Raises StorageError if the mesh cannot be written.
    """
    _written(mesh, lambda path: pycolmap.sparse_delaunay_meshing(str(model), str(path)))


def _written(mesh: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `mesh` and put it in place when it is complete."""
    temporary = mesh.with_name(f"{TEMPORARY_PREFIX}{mesh.name}")
    try:
        temporary.unlink(missing_ok=True)
        write(temporary)
        if not temporary.exists() or temporary.stat().st_size == 0:
            raise StorageError(f"no surface could be made for {mesh}: the points are too few, or the disk is full")
        temporary.replace(mesh)
    except OSError as error:
        raise storage_error(mesh, error) from error
    except (RuntimeError, ValueError) as error:
        raise StorageError(f"cannot write {mesh}: {str(error).splitlines()[0]}") from error
    finally:
        temporary.unlink(missing_ok=True)
