"""How models agree with ground control points, in words and as ground_control.json."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from anchorsfm.mapping.control import Controlled
from anchorsfm.report.places import Line
from anchorsfm.scene.ground import GroundPoints

_METRES, _PIXELS = 4, 2
"""Decimals."""
_MAX_NAMED = 5
_BAD_PX = 20.0
"""No careful mark is so far off, and no usable model."""


def control_lines(found: Controlled, ground: GroundPoints) -> Iterator[Line]:
    """What was done with the points of a model, and how far they are off."""
    if found.problem is not None:
        yield Line(f"it is not in the frame of the ground control points: {found.problem}", is_warning=True)
        return
    for what, which in (("control", found.is_used), ("check", ground.is_check)):
        seen = which & np.isfinite(found.residual_m).all(axis=1)
        if not seen.any():
            continue
        across, up = found.rms_m(seen)
        error = found.residual_px[seen[ground.point] & np.isfinite(found.residual_px)]
        rms_px = float(np.sqrt((error**2).mean()))
        is_bad = rms_px > _BAD_PX
        yield Line(
            f"{int(seen.sum())} {what} points: {across:.3g} m horizontally, {up:.3g} m vertically, "
            f"{rms_px:.2g} px (RMS){': they do not fit the photographs' if is_bad else ''}",
            is_warning=is_bad,
        )
    wrong = np.flatnonzero(~ground.is_check & ~found.is_used & np.isfinite(found.residual_m).all(axis=1))
    if len(wrong):
        named = ", ".join(
            f"{ground.names[k]} ({np.linalg.norm(found.residual_m[k]):.2g} m)" for k in wrong[:_MAX_NAMED].tolist()
        )
        more = "" if len(wrong) <= _MAX_NAMED else f" and {len(wrong) - _MAX_NAMED} more"
        yield Line(f"control points that contradict the others have no say: {named}{more}", is_warning=True)


def describe_control(found: Sequence[Controlled], ground: GroundPoints, names: Sequence[str]) -> dict[str, Any]:
    """The content of ground_control.json."""
    models = []
    for number, one in enumerate(found):
        points = [_point(one, ground, row, names) for row in range(len(ground.names))]
        models.append({"number": number, "problem": one.problem, "points": points})
    return {"models": models}


def _point(found: Controlled, ground: GroundPoints, row: int, names: Sequence[str]) -> dict[str, Any]:
    residual, marks = found.residual_m[row], []
    for mark in np.flatnonzero(ground.point == row).tolist():
        error = float(found.residual_px[mark])
        marks.append(
            {
                "image": names[int(ground.image[mark])],
                "xy_px": ground.xy_px[mark].tolist(),
                "residual_px": round(error, _PIXELS) if np.isfinite(error) else None,
            }
        )
    return {
        "name": ground.names[row],
        "role": "check" if ground.is_check[row] else "control" if found.is_used[row] else "not used",
        "surveyed": ground.given[row].tolist(),
        "xyz_m": np.round(ground.xyz_m[row], _METRES).tolist(),
        "residual_m": np.round(residual, _METRES).tolist() if np.isfinite(residual).all() else None,
        "marks": marks,
    }
