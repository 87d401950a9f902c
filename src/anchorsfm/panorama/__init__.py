"""Panoramas of 360 degrees: recognised, and cut into pinhole views that are held as one rig."""
