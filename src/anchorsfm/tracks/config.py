"""What a user can set about keypoints, tracks and their adjustment: light to import."""

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from anchorsfm.scene.settings import Range, Settings

MAX_IMAGES_ON_ONE_THREAD = 150
"""Larger sets are adjusted on all cores unless a number of threads is given."""
FEW_VIEWS = 4
"""Models of so many views, which average little, have the observations of all keypoints refined in the photographs."""


@dataclass(frozen=True, kw_only=True)
class SparsifyConfig(Settings):
    """Which matches become keypoints."""

    confidence_percentile: Annotated[float, Range(0, 100)] = 20.0
    """Percentile of the confidences of a pair below which its matches are dropped (matches on a network's grid
    only)."""
    min_confidence: Annotated[float, Range(0, 1_000_000)] = 1.5
    """Smallest confidence of a match that may become part of a track."""
    max_error: Annotated[float, Range(0.05, 10000)] = 1.5
    """Largest distance of a match from the epipolar geometry of its pair, in pixels of the front end's grid."""
    max_iterations: Annotated[int, Range(10, 1_000_000)] = 3000
    """Most iterations of the robust estimation of a pair's epipolar geometry."""
    min_inliers: Annotated[int, Range(8, 1_000_000)] = 15
    """Fewest verified matches of a pair; pairs with fewer are dropped."""
    degenerate_ratio: Annotated[float, Range(0, 1)] = 0.95
    """Share of the verified matches of a pair from which, if a homography explains them too, the pair is degenerate (a
    plane or a rotation)."""
    merge_radius: Annotated[float, Range(0, 100)] = 1.5
    """Distance below which coordinates in an image are one keypoint, in pixels of the front end's grid."""
    suppress_radius: Annotated[float, Range(0, 1000)] = 4.0
    """Smallest distance of two keypoints of an image, in pixels of the front end's grid."""
    max_keypoints: Annotated[int, Range(8, 10_000_000)] = 4096
    """Most keypoints of an image where they are made from matches on a grid."""
    max_detected_keypoints: Annotated[int, Range(8, 10_000_000)] = 12288
    """Most keypoints of an image where a detector found them: they are exact, and more of them are more points."""


@dataclass(frozen=True, kw_only=True)
class SubpixelConfig(Settings):
    """Refinement of observations."""

    radius: Annotated[int, Range(2, 32)] = 6
    """Radius in pixels of the windows that are aligned: they are 2 radius + 1 pixels wide."""
    max_iterations: Annotated[int, Range(1, 1000)] = 10
    """Most steps of the alignment of a window on each level of the image pyramid."""
    min_score: Annotated[float, Range(-1, 1)] = 0.8
    """Smallest zero-mean normalised cross-correlation of a refined observation with the reference of its track."""
    max_sigma_px: Annotated[float, Range(0.001, 100)] = 0.25
    """Largest standard deviation in pixels of a refined position, as residual and texture of its window predict it."""
    max_shift: Annotated[float, Range(0, 1000)] = 3.0
    """Farthest that an observation may move, in multiples of its uncertainty; one pixel is added."""
    on_failure: Literal["drop", "keep"] = "drop"
    """What becomes of observations whose windows do not fit: they are dropped, or kept where they were."""
    model_error: Annotated[float, Range(1e-5, 1)] = 0.012
    """Largest reprojection error with which a track is triangulated to predict its windows, as a share of the long
    side."""
    window_memory_mib: Annotated[int, Range(0, 1_000_000)] = 512
    """Memory in MiB for the windows of reference observations."""
    batch_size: Annotated[int, Range(1, 1_000_000)] = 1024
    """Windows that are aligned at a time; more need more memory."""


@dataclass(frozen=True, kw_only=True)
class AdjustConfig(Settings):
    """Triangulation and bundle adjustment."""

    min_observations: Annotated[int, Range(6, 1_000_000)] = 30
    """Fewest observations of triangulated points of an image; images with fewer are not registered."""
    min_angle_deg: Annotated[float, Range(0, 90)] = 1.5
    """Smallest triangulation angle of a point in degrees."""
    narrow_angle_deg: Annotated[float, Range(0, 90)] = 0.3
    """Smallest triangulation angle of a point in degrees where no model would be left otherwise, as of two cameras
    close together."""
    first_error: Annotated[float, Range(1e-5, 1)] = 0.012
    """Largest reprojection error in the first round of the adjustment, as a share of the long side of the image."""
    second_error: Annotated[float, Range(1e-5, 1)] = 0.004
    """Largest reprojection error in the second round of the adjustment, as a share of the long side of the image."""
    final_error_px: Annotated[float, Range(0.01, 1000)] = 3.0
    """Largest reprojection error in the last rounds of the adjustment, in pixels of the working size (see
    --max-image-size)."""
    refine_focal: bool = True
    """Adjust focal lengths; those given by --focal-px are kept whatever this says."""
    refine_principal_point: bool = True
    """Adjust the principal points of cameras that enough images share (see --adjust.principal-point-min-images)."""
    principal_point_min_images: Annotated[int, Range(1, 1_000_000)] = 3
    """Fewest images of a camera with which its principal point is adjusted: fewer do not show where it is."""
    principal_point_prior: Annotated[float, Range(1e-9, 10)] = 0.0075
    """Standard deviation of principal points about the image centre (or a given place), as a share of the long side:
    the smaller it is, the more the photographs must show before they are believed."""
    max_iterations: Annotated[int, Range(1, 10_000)] = 50
    """Most iterations of each call of the bundle adjustment."""
    all_points_up_to: Annotated[int, Range(0, 1_000_000)] = 150
    """Most images of a model whose cameras are adjusted with all points in every round. The cameras of larger ones are
    adjusted with the longest tracks, spread over each picture, until the last adjustment, which has all points."""
    num_threads: Annotated[int, Range(0, 256)] = 0
    """Threads of the bundle adjustment; 0: one for up to 150 images, beyond that one per processor core. With one,
    equal input gives equal bits; with more, sums change order between runs."""

    def threads_for(self, num_images: int) -> int:
        """How many threads adjust a set of photographs."""
        if self.num_threads:
            return self.num_threads
        return 1 if num_images <= MAX_IMAGES_ON_ONE_THREAD else os.cpu_count() or 1
