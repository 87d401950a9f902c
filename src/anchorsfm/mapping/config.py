"""What a user can set about mappers and known cameras: light to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro.conf

from anchorsfm.scene.settings import NotEmpty, Range, Settings

MapperName = Literal["align", "tracks", "incremental", "global", "known"]
UpMode = Literal["auto", "plane", "manhattan", "off"]
GpsMode = Literal["auto", "off", "check", "align", "prior"]
DEPTH_MAPPERS: tuple[MapperName, ...] = ("align",)
"""Mappers that work on predictions of depth; the others work on matches."""
POSE_MAPPERS: tuple[MapperName, ...] = ("align", "known")
"""Mappers that take known poses; the others find all poses."""


@dataclass(frozen=True, kw_only=True)
class RigConfig(Settings):
    """Cameras that are fixed to each other and fired together (docs/method.md, Rigs)."""

    file: Annotated[str | None, NotEmpty(), tyro.conf.arg(aliases=["--rig"])] = None
    """Description of the rigs, in COLMAP's format (rig_config.json), or auto: folders that hold photographs of the same
    names, names in one folder that differ in their beginnings (left_001.jpg, right_001.jpg), or folders whose
    photographs were taken at the same times. Poses of cameras in the rig are found unless the file gives them."""
    refine: bool = True
    """Adjust poses of cameras in the rig that the file gives; otherwise they are kept. The model has their scale."""


@dataclass(frozen=True, kw_only=True)
class GcpConfig(Settings):
    """Ground control points: surveyed, and marked in photographs (docs/method.md, Ground control points)."""

    file: Annotated[Path | None, tyro.conf.arg(aliases=["--gcp"])] = None
    """Marks of surveyed points, as OpenDroneMap's gcp_list.txt or as a .csv file. The model is brought onto them and
    adjusted with them; recorded positions of photographs are only compared with it then."""
    check: tuple[Annotated[str, NotEmpty()], ...] = ()
    """Names of points that the model is only compared with."""


@dataclass(frozen=True, kw_only=True)
class KnownConfig(Settings):
    """What is known of some or all of the photographs, for instance from a calibration or a motion capture."""

    model: Path | None = None
    """COLMAP model with known cameras; also nerfstudio's transforms.json, or a TUM or KITTI file of poses. Images are
    matched by name. Cameras of other photographs are found as usual."""
    use_poses: bool = True
    """Take the poses of the known model; without this only its intrinsics are used."""
    freeze_poses: bool = True
    """Keep the poses of the known model exactly; otherwise they only start the alignment."""
    position_sigma: Annotated[float | None, Range(1e-9, 1e9)] = None
    """Standard deviation of the known model's camera positions, in its own units: positions that are not kept exactly
    (see --known.no-freeze-poses) then constrain the adjustment with this strength, and the result is in the known frame
    and scale."""
    rotation_sigma_deg: Annotated[float | None, Range(1e-4, 90)] = None
    """Standard deviation of the known model's rotations about each axis, degrees: with --known.position-sigma they
    constrain the adjustment, too."""
    guided_matching: bool = True
    """With --mapper known: look for more matches along the epipolar lines of known poses, or of adjusted ones,
    unless LightGlue matches."""
    freeze_intrinsics: bool = True
    """Keep the intrinsics of the known model exactly; otherwise they only start the alignment."""

    def check_together(self) -> None:
        if self.position_sigma is not None and self.freeze_poses:
            problem = "says how far known positions may be off, which are kept exactly unless freeze_poses is off"
            raise self.refused("position_sigma", f"{problem} (--known.no-freeze-poses)")
        if self.rotation_sigma_deg is not None and self.position_sigma is None:
            raise self.refused(
                "rotation_sigma_deg", "has an effect together with the deviation of positions only: set position_sigma"
            )
