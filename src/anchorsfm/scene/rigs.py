"""Cameras that are fixed to each other, and which photographs they took at the same moment."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class Rigs:
    """Rigs, their sensors (the cameras of a rig) and frames (what they take at one moment), by index in the ImageSet.

    A rig has axes of its own; poses of sensors are `sensor_from_rig`, so cam_from_world = sensor_from_rig o
    rig_from_world. Every sensor has a camera for itself, which no other photographs share.
    """

    sensor: Int[np.ndarray, "image"]
    """Row of the sensor that took each photograph; -1: it is of no rig."""
    frame: Int[np.ndarray, "image"]
    """Number of the frame of each photograph; -1: it is of no rig. Frames of different rigs have different numbers."""
    rig: Int[np.ndarray, "sensor"]
    """Number of the rig of every sensor. The first sensor of a rig is its reference."""
    sensor_from_rig: Float[np.ndarray, "sensor 3 4"]
    """Poses in the rig, in units of the world; NaN where unknown."""
    is_fixed: Bool[np.ndarray, "sensor"]
    """Sensors whose pose is not adjusted; references are among them, as they set the axes of the rig."""

    @property
    def is_known(self) -> Bool[np.ndarray, "sensor"]:
        """Sensors whose pose is known."""
        return np.asarray(np.isfinite(self.sensor_from_rig).all(axis=(1, 2)))

    @property
    def has_one_centre(self) -> Bool[np.ndarray, "sensor"]:
        """Sensors that see from the origin of their rig, and stay there: of panoramas."""
        return np.asarray(self.is_fixed & self.is_known & (np.abs(self.sensor_from_rig[:, :, 3]).max(axis=1) == 0))

    def frames(self, images: Int[np.ndarray, "view"]) -> Int[np.ndarray, "view"]:
        """Frame of some photographs, -1 for those whose pose says nothing about others: of no rig, or of a sensor that
        has no known pose."""
        sensor = self.sensor[images]
        return np.where((sensor >= 0) & self.is_known[sensor], self.frame[images], -1)

    def one_view(self) -> Bool[np.ndarray, "image image"]:
        """Pairs of photographs that were taken from one point at one moment: they say nothing about distances."""
        views = self.views_of_panoramas
        return np.asarray((self.frame[:, None] == self.frame) & views[:, None] & views)

    @property
    def views_of_panoramas(self) -> Bool[np.ndarray, "image"]:
        """Photographs by sensors that have one centre."""
        return np.asarray((self.sensor >= 0) & self.has_one_centre[self.sensor])

    def select(self, images: Int[np.ndarray, "kept"] | list[int]) -> "Rigs":
        """Those of some of the photographs."""
        return replace(self, sensor=self.sensor[images], frame=self.frame[images])

    def scaled(self, factor: float) -> "Rigs":
        """In a world that is larger by a factor."""
        pose = self.sensor_from_rig.copy()
        pose[:, :, 3] *= factor
        return replace(self, sensor_from_rig=pose)
