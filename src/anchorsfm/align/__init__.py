"""Sparse global alignment: cameras and anchor depths of all images at once (method: Part A6-A8)."""

from anchorsfm.align.config import AlignConfig, AnchorDepthMode, InitialPoses, ReferenceCompat
from anchorsfm.align.run import align

__all__ = ["AlignConfig", "AnchorDepthMode", "InitialPoses", "ReferenceCompat", "align"]
