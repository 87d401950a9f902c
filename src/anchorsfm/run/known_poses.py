"""What known poses mean for the matches of a run: which contradict them, and which are found with them."""

from anchorsfm.features.config import chosen_matcher
from anchorsfm.features.methods import make_detector
from anchorsfm.features.store import FeatureStore
from anchorsfm.frontend import ClassicalFrontend
from anchorsfm.frontend.base import Frontend
from anchorsfm.io.store import Store
from anchorsfm.mapping.along_lines import with_matches_along_lines
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.pose_check import name_doubtful_poses
from anchorsfm.mapping.with_poses import along_epipolar_lines
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import Progress


def with_known_poses(
    given: MapperInput, pairs: PairList, frontend: Frontend, store: Store, progress: Progress
) -> MapperInput:
    """The input of the mapper of known poses: matches near their epipolar lines, and more that are looked for there.

    Raises InputError if the poses contradict the photographs.
    """
    name_doubtful_poses(given, progress)
    near = along_epipolar_lines(given)
    known = given.known
    if known is None or not (known.config.guided_matching and known.config.freeze_poses):
        return near  # bands of poses that are to be adjusted are wide: they gain little
    if not isinstance(frontend, ClassicalFrontend):
        return near
    if chosen_matcher(frontend.matching, frontend.features.first_detector) == "lightglue":
        return near  # it looks at whole photographs
    detector = make_detector(frontend.features, frontend.networks, progress)
    features = FeatureStore(images=given.images, detector=detector, store=store)
    workers = frontend.workers.resolve()
    return with_matches_along_lines(near, pairs.index, features, frontend.matching.max_ratio, workers, progress)
