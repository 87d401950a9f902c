"""Which files are masks of which photographs: COLMAP's convention, and the same name without its extension."""

import os
from collections.abc import Sequence
from pathlib import Path


def mask_file(folder: Path, name: str, photograph: Path) -> Path | None:
    """What masks a photograph by its name; that may be no file, or no picture. A photograph is no mask of itself."""
    candidates = (folder / f"{name}.png", (folder / name).with_suffix(".png"))
    there = [path for path in candidates if os.path.lexists(path)]
    return next((path for path in there if path.resolve() != photograph.resolve()), None)


def without_masks(root: Path, names: Sequence[str], folder: Path) -> list[str]:
    """The names without those of files that mask another one: masks may lie among the photographs."""
    masks = {mask.resolve() for name in names if (mask := mask_file(folder, name, root / name)) is not None}
    return [name for name in names if (root / name).resolve() not in masks]
