"""`anchorsfm triangulate`: known poses in, points out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm.mapping.config import KnownConfig
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.settings import Range, Settings
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Triangulate(Settings):
    """Make points of photographs whose poses are known: those of a robot, a telephone or another program.

    The result is an output folder as of `anchorsfm reconstruct`, in the frame and unit of the poses. Examples:

    anchorsfm triangulate photos --poses transforms.json -o out

    anchorsfm triangulate photos --poses tum.txt -o out --adjust-poses --position-sigma 0.02 --rotation-sigma-deg 0.3
    """

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Folders, image files or text files that list images."""
    poses: Path
    """A COLMAP model, nerfstudio's transforms.json (ARKit applications write it too), or a TUM or KITTI file."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for the results: new, empty, or of an earlier run."""
    adjust_poses: bool = False
    """Adjust the poses, too; see --position-sigma and --rotation-sigma-deg."""
    position_sigma: Annotated[float | None, Range(1e-9, 1e9)] = None
    """Standard deviation of the positions in their own unit, with --adjust-poses: they constrain the adjustment."""
    rotation_sigma_deg: Annotated[float | None, Range(1e-4, 90)] = None
    """Standard deviation of the rotations about each axis in degrees, with --position-sigma: they constrain it, too."""
    adjust_intrinsics: bool = False
    """Adjust focal lengths and distortion that come with the poses; those that do not are always found."""
    guided_matching: bool = True
    """Look for more matches along the epipolar lines of the poses: a tenth more points for a fifth to two thirds more
    time."""
    max_image_size: Annotated[int, Range(64, 65536)] = 1024
    """Long side in pixels at which photographs are looked at."""
    masks: Path | None = None
    """Folder with masks, NAME.png for the photograph NAME: black is ignored."""
    dense: bool = False
    """Write a dense cloud, too."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def check_together(self) -> None:
        if self.position_sigma is not None and not self.adjust_poses:
            raise self.refused(
                "position_sigma", "says how far the poses may be off, which are kept exactly: add --adjust-poses"
            )

        if self.rotation_sigma_deg is not None and self.position_sigma is None:
            raise self.refused(
                "rotation_sigma_deg",
                "has an effect together with the deviation of positions only: add --position-sigma",
            )

    def run(self, console: Terminal) -> None:
        from anchorsfm.pipeline import reconstruct
        from anchorsfm.report import summary_lines
        from anchorsfm.scene.errors import InputError

        if not self.photos:
            raise InputError("name the photographs: anchorsfm triangulate PHOTOS --poses MODEL --output OUT")
        source = self.photos[0] if len(self.photos) == 1 else list(self.photos)
        with show_progress(console, quiet=self.quiet) as progress:
            result = reconstruct(source, self.output, self.configured(), progress)
        for line in summary_lines(result.report):
            console.print(line)
        console.print(f"model: {self.output / 'sparse' / '0'}")

    def configured(self) -> PipelineConfig:
        """The settings of the run."""
        known = KnownConfig(
            model=self.poses,
            freeze_poses=not self.adjust_poses,
            position_sigma=self.position_sigma,
            rotation_sigma_deg=self.rotation_sigma_deg,
            freeze_intrinsics=not self.adjust_intrinsics,
            guided_matching=self.guided_matching,
        )
        return PipelineConfig(
            mapper="known",
            known=known,
            max_image_size=self.max_image_size,
            masks=self.masks,
            dense=self.dense,
            gps="off",
        )
