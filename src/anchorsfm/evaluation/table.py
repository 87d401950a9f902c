"""Evaluations as text and as plain values."""

import math
from collections.abc import Mapping
from typing import Any

from anchorsfm.evaluation.poses import AUC_THRESHOLDS_DEG, RATE_THRESHOLDS_DEG, PoseEvaluation


def format_table(evaluations: PoseEvaluation | Mapping[str, PoseEvaluation]) -> list[str]:
    """Lines of a table, one row per named evaluation, or for just one. Rates and areas in percent."""
    if isinstance(evaluations, PoseEvaluation):
        evaluations = {"": evaluations}
    rows = [["", *next(map(_cells, evaluations.values()), {})]]
    rows += [[name, *_cells(evaluation).values()] for name, evaluation in evaluations.items()]
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(width[0]), *map(str.rjust, row[1:], width[1:])]) for row in rows]
    return [line if width[0] else line[2:] for line in lines]


def _cells(evaluation: PoseEvaluation) -> dict[str, str]:
    cells = {"images": f"{evaluation.num_registered}/{evaluation.num_images}"}
    for name, values, limits in (
        ("AUC", evaluation.auc, AUC_THRESHOLDS_DEG),
        ("RRA", evaluation.rra, RATE_THRESHOLDS_DEG),
        ("RTA", evaluation.rta, RATE_THRESHOLDS_DEG),
    ):
        cells |= {f"{name}@{limit}": f"{100 * value:.1f}" for limit, value in zip(limits, values, strict=True)}
    return cells | {
        "rot [deg]": f"{evaluation.median_rotation_deg:.3f}",
        "tra [deg]": f"{evaluation.median_translation_deg:.3f}",
        "ATE": _number(evaluation.ate_rmse, ".4g"),
        "focal [%]": _number(100 * evaluation.focal_error, ".2f"),
    }


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def to_dict(evaluation: PoseEvaluation) -> dict[str, Any]:
    """Numbers and strings only, for JSON; None where a value is not defined. Rates and areas from 0 to 1."""
    plain: dict[str, Any] = {
        "num_images": evaluation.num_images,
        "num_registered": evaluation.num_registered,
        "missing": list(evaluation.missing),
    }
    for name, values, limits in (
        ("auc", evaluation.auc, AUC_THRESHOLDS_DEG),
        ("rra", evaluation.rra, RATE_THRESHOLDS_DEG),
        ("rta", evaluation.rta, RATE_THRESHOLDS_DEG),
    ):
        plain |= {f"{name}_{limit}": float(value) for limit, value in zip(limits, values, strict=True)}
    for name in ("median_rotation_deg", "median_translation_deg", "ate_rmse", "focal_error"):
        value = getattr(evaluation, name)
        plain[name] = value if math.isfinite(value) else None
    return plain
