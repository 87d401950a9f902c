"""Where cameras look by two angles, as drones and compasses record them, and how poses differ from that.

Yaw is clockwise from north, pitch upwards from level; degrees. World axes are x east, y north, z up. Roll is left out:
whether it is about the stored or the upright picture, nobody says.
"""

import numpy as np
from jaxtyping import Float

_LEVEL = 0.5
"""Horizontal part of a direction from which on it has a heading; else the top of the picture has."""


def cam_from_enu_rotation(yaw_pitch_deg: Float[np.ndarray, "view 2"]) -> Float[np.ndarray, "view 3 3"]:
    """Rotations of cameras that look by these angles and do not roll."""
    yaw, pitch = np.radians(yaw_pitch_deg).T
    forward = np.stack([np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), np.sin(pitch)], axis=1)
    right = np.stack([np.cos(yaw), -np.sin(yaw), np.zeros_like(yaw)], axis=1)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def pitch_and_heading_deg(
    rotation: Float[np.ndarray, "view 3 3"], yaw_pitch_deg: Float[np.ndarray, "view 2"]
) -> tuple[Float[np.ndarray, "view"], Float[np.ndarray, "view"]]:
    """By how many degrees pitch and heading of cameras (cam_from_enu) are off recorded ones.

    Both are positive, NaN where nothing is recorded. The heading of cameras that look steeply up or down is that of the
    top of their pictures, and needs a recorded pitch.
    """
    forward = rotation[:, 2]
    pitch = np.abs(np.degrees(np.arcsin(np.clip(forward[:, 2], -1, 1))) - yaw_pitch_deg[:, 1])
    looks = np.degrees(np.arctan2(forward[:, 0], forward[:, 1]))
    heading = (looks - yaw_pitch_deg[:, 0] + 180) % 360 - 180
    steep = np.linalg.norm(forward[:, :2], axis=1) <= _LEVEL
    turn = np.swapaxes(cam_from_enu_rotation(yaw_pitch_deg[steep]), 1, 2) @ rotation[steep]  # about the vertical
    heading[steep] = np.degrees(np.arctan2(turn[:, 1, 0] - turn[:, 0, 1], turn[:, 0, 0] + turn[:, 1, 1]))
    return pitch, np.abs(heading)
