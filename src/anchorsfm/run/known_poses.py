"""What known poses mean for the matches of a run: which contradict them."""

from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.pose_check import name_doubtful_poses
from anchorsfm.mapping.with_poses import along_epipolar_lines
from anchorsfm.scene.progress import Progress


def with_known_poses(given: MapperInput, progress: Progress) -> MapperInput:
    """The input of the mapper of known poses: matches near their epipolar lines.

    Raises InputError if the poses contradict the photographs.
    """
    name_doubtful_poses(given, progress)
    return along_epipolar_lines(given)
