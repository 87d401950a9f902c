"""Matrices of image similarities in .npy files."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from anchorsfm.scene.errors import InputError


def open_similarity(path: Path) -> np.ndarray:
    """The matrix, on disk still: (image, image) of numbers.

    Raises InputError if the file holds anything else; its size is what its header says.
    """
    if not path.is_file():
        raise InputError(f"cannot read the similarities in {path}: there is no such file")
    try:
        with np.errstate(over="ignore"):  # the number of elements of a shape that cannot be
            matrix = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the header is text in Python's syntax, of which a damaged one makes anything
        raise InputError(f"{path} is not a complete .npy file of similarities (write it with numpy.save)") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "biuf":
        shape = "x".join(map(str, matrix.shape)) or "single value"
        raise InputError(f"{path} holds a {shape} of {matrix.dtype}: similarities are a square matrix of numbers")
    return matrix


def read_similarity(path: Path, num_images: int) -> Float[np.ndarray, "image image"]:
    """The similarities of a set of images.

    Raises InputError if the file does not hold a finite number for every two of them.
    """
    matrix = open_similarity(path)
    if len(matrix) != num_images:
        raise InputError(f"{path} holds the similarities of {len(matrix)} images, but there are {num_images}")
    similarity = np.asarray(matrix, np.float64)
    if not np.isfinite(similarity).all():
        row, column = np.argwhere(~np.isfinite(similarity))[0].tolist()
        raise InputError(f"{path}: the similarity of images {row} and {column} is {similarity[row, column]}")
    return similarity
