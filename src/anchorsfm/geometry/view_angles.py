"""Where cameras look by three angles, as drones and compasses record them, and how poses differ from that.

Yaw is clockwise from north, pitch upwards from level, roll clockwise as the camera sees; degrees. World axes are x
east, y north, z up.
"""

import numpy as np
from jaxtyping import Float

_LEVEL = 0.5
"""Horizontal part of a direction from which on it has a heading."""


def cam_from_enu_rotation(yaw_pitch_roll_deg: Float[np.ndarray, "view 3"]) -> Float[np.ndarray, "view 3 3"]:
    """Rotations of cameras that look by these angles."""
    yaw, pitch, roll = np.radians(yaw_pitch_roll_deg).T
    zero = np.zeros_like(yaw)
    forward = np.stack([np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), np.sin(pitch)], axis=1)
    right = np.stack([np.cos(yaw), -np.sin(yaw), zero], axis=1)
    down = np.cross(forward, right)
    sine, cosine = np.sin(roll)[:, None], np.cos(roll)[:, None]
    return np.stack([cosine * right + sine * down, cosine * down - sine * right, forward], axis=1)


def tilt_and_heading_deg(
    rotation: Float[np.ndarray, "view 3 3"], yaw_pitch_roll_deg: Float[np.ndarray, "view 3"]
) -> tuple[Float[np.ndarray, "view"], Float[np.ndarray, "view"]]:
    """By how many degrees the vertical and the heading of cameras (cam_from_enu) are off recorded angles.

    Both are positive, NaN where nothing is recorded. Of a yaw alone only the heading is compared, of cameras that look
    roughly level.
    """
    tilt, heading = np.full((2, len(rotation)), np.nan)
    whole = np.isfinite(yaw_pitch_roll_deg).all(axis=1)
    recorded = cam_from_enu_rotation(yaw_pitch_roll_deg[whole])
    up = (rotation[whole, :, 2] * recorded[:, :, 2]).sum(axis=1)
    tilt[whole] = np.degrees(np.arccos(np.clip(up, -1, 1)))
    turn = np.swapaxes(recorded, 1, 2) @ rotation[whole]  # about the vertical, if the tilts are equal
    heading[whole] = np.degrees(np.arctan2(turn[:, 1, 0] - turn[:, 0, 1], turn[:, 0, 0] + turn[:, 1, 1]))
    alone = ~whole & np.isfinite(yaw_pitch_roll_deg[:, 0])
    alone &= np.linalg.norm(rotation[:, 2, :2], axis=1) > _LEVEL
    looks = np.degrees(np.arctan2(rotation[alone, 2, 0], rotation[alone, 2, 1]))
    heading[alone] = (looks - yaw_pitch_roll_deg[alone, 0] + 180) % 360 - 180
    return tilt, np.abs(heading)
