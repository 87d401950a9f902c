"""The classical front end: light to import, the work is in `opening` and `predictor`."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anchorsfm.frontend.classical.config import ClassicalConfig
from anchorsfm.frontend.run_settings import RunSettings
from anchorsfm.io.store import Store
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import Progress

if TYPE_CHECKING:
    from anchorsfm.frontend.classical.predictor import ClassicalPredictor


@dataclass(frozen=True, kw_only=True)
class ClassicalFrontend(ClassicalConfig):
    """Predictions from two-view geometry and stereo: no GPU and no weights, unless keypoints are those of a network."""

    def for_run(self, run: RunSettings) -> "ClassicalFrontend":
        """With what the run says where these settings leave it open."""
        features, matching = self.features, self.matching
        if features.max_image_size is None:
            features = replace(features, max_image_size=run.max_image_size)
        if matching.seed is None:
            matching = replace(matching, seed=run.seed)
        exactness = 0.0 if run.focal_is_exact else self.intrinsics.recorded_focal_spread
        return replace(
            self,
            features=features,
            matching=matching,
            intrinsics=replace(self.intrinsics, recorded_focal_spread=exactness),
            dense=replace(self.dense, enabled=self.dense.enabled and run.needs_depth),
        )

    def open(self, images: ImageSet, pairs: PairList, store: Store, progress: Progress) -> "ClassicalPredictor":
        """Features, matches, focal lengths, relative poses and their scales; dense depth follows on iteration."""
        from anchorsfm.frontend.classical.opening import open_predictor

        only_views = images.rigs is not None and bool(images.rigs.views_of_panoramas.all())
        return open_predictor(self.for_run(RunSettings(focal_is_exact=only_views)), images, pairs, store, progress)
