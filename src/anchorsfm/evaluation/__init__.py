"""Comparing a model with known poses."""

from anchorsfm.evaluation.poses import AUC_THRESHOLDS_DEG, RATE_THRESHOLDS_DEG, PoseEvaluation, evaluate_poses
from anchorsfm.evaluation.sources import poses_of, read_poses
from anchorsfm.evaluation.table import format_table, to_dict

__all__ = [
    "AUC_THRESHOLDS_DEG",
    "RATE_THRESHOLDS_DEG",
    "PoseEvaluation",
    "evaluate_poses",
    "format_table",
    "poses_of",
    "read_poses",
    "to_dict",
]
