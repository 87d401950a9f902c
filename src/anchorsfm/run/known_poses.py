"""What known poses mean for the matches of a run: which contradict them, and which are found with them."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from anchorsfm.features.config import chosen_matcher
from anchorsfm.features.methods import make_detector
from anchorsfm.features.store import FeatureStore
from anchorsfm.frontend import ClassicalFrontend
from anchorsfm.frontend.base import Frontend
from anchorsfm.io.store import Store
from anchorsfm.mapping.along_lines import with_matches_along_lines
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.finish import FinishedModels, ModellingSettings, finished_again
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.mapping.pose_check import name_doubtful_poses
from anchorsfm.mapping.with_poses import along_epipolar_lines
from anchorsfm.scene.errors import NoReconstructionError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Reconstruction


@dataclass(frozen=True, kw_only=True)
class LineSearch:
    """What it takes to look for matches along the lines of known poses."""

    pairs: Int[np.ndarray, "pair 2"]
    features: FeatureStore
    max_ratio: float
    num_workers: int

    def __call__(self, given: MapperInput, progress: Progress) -> MapperInput:
        """The input with the matches along its known lines."""
        return with_matches_along_lines(given, self.pairs, self.features, self.max_ratio, self.num_workers, progress)


def line_search(
    config: KnownConfig, images: ImageSet, pairs: PairList, frontend: Frontend, store: Store, progress: Progress
) -> LineSearch | None:
    """How matches are looked for; None: they are not, or what matches needs whole photographs (LightGlue)."""
    if not config.guided_matching or not isinstance(frontend, ClassicalFrontend):
        return None
    if chosen_matcher(frontend.matching, frontend.features.first_detector) == "lightglue":
        return None
    detector = make_detector(frontend.features, frontend.networks, progress)
    return LineSearch(
        pairs=pairs.index,
        features=FeatureStore(images=images, detector=detector, store=store),
        max_ratio=frontend.matching.max_ratio,
        num_workers=frontend.workers.resolve(),
    )


def with_known_poses(given: MapperInput, search: LineSearch | None, progress: Progress) -> MapperInput:
    """The input of the mapper of known poses: matches near their lines, and more along those of poses that are kept.

    Raises InputError if the poses contradict the photographs.
    """
    name_doubtful_poses(given, progress)
    near = along_epipolar_lines(given)
    if search is None or given.known is None or not given.known.config.freeze_poses:
        return near
    return search(near, progress)


def adjusted_along_lines(
    finished: FinishedModels,
    given: MapperInput,
    settings: ModellingSettings,
    search: LineSearch | None,
    progress: Progress,
) -> tuple[FinishedModels, MapperInput]:
    """Models adjusted from known poses once more, with matches along the lines of the adjusted ones; and their input.

    Poses that were kept have had theirs. Where models were changed for other reasons than the adjustment they stay as
    they are.
    """
    is_adjusted = settings.adjusts and given.known is not None and not given.known.config.freeze_poses
    if search is None or not is_adjusted or finished.changes or len(finished.results) != 1:
        return finished, given
    at = _known_as(finished.results[0].model, given)
    if at is None:
        return finished, given
    found = search(along_epipolar_lines(at), progress)
    more = replace(given, matches=found.matches, tracks=found.tracks)
    try:
        return finished_again(finished, more, settings, progress), more
    except NoReconstructionError:  # the model that there is holds
        return finished, given


def _known_as(model: Reconstruction, given: MapperInput) -> MapperInput | None:
    """All matches that were found without poses, with those of a model as the known ones; None where it has other
    cameras than the photographs had."""
    rows, camera_index = np.unique(given.images.camera_index[model.image_index], return_inverse=True)
    if given.known is None or given.free is None or not np.array_equal(camera_index.reshape(-1), model.camera_index):
        return None
    cameras = list(given.cameras)
    for row, camera in zip(rows.tolist(), model.cameras, strict=True):
        cameras[row] = camera
    known = KnownCameras(
        config=KnownConfig(model=given.known.config.model),
        poses=dict(zip(model.image_index.tolist(), model.cam_from_world, strict=True)),
        cameras=dict(zip(rows.tolist(), model.cameras, strict=True)),
        camera_index=given.images.camera_index,
    )
    return replace(
        given,
        matches=given.free,
        cameras=tuple(cameras),
        known=known,
        known_camera=np.ones_like(given.known_camera),
    )
