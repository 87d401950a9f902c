"""Evaluations as text and as plain values."""

import math
from collections.abc import Mapping
from typing import Any

from anchorsfm.evaluation.poses import AUC_THRESHOLDS_DEG, RATE_THRESHOLDS_DEG, PoseEvaluation


def format_table(evaluations: Mapping[str, PoseEvaluation]) -> list[str]:
    """Lines of a table with one row per named evaluation. Rates and areas in percent."""
    rows = [_cells(evaluation) for evaluation in evaluations.values()]
    header = ["", *(rows[0] if rows else [])]
    body = [[name, *row.values()] for name, row in zip(evaluations, rows, strict=True)]
    width = [max(len(line[column]) for line in [header, *body]) for column in range(len(header))]
    return [
        "  ".join([line[0].ljust(width[0]), *map(str.rjust, line[1:], width[1:])]).rstrip() for line in [header, *body]
    ]


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


def to_plain(evaluation: PoseEvaluation) -> dict[str, Any]:
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
