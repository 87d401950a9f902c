"""The configuration of the classical front end: light to import, the work is in `opening` and `predictor`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anchorsfm.frontend.classical.config import (
    DenseConfig,
    FeatureConfig,
    IntrinsicsConfig,
    MatchingConfig,
    TwoViewConfig,
    WorkerConfig,
)
from anchorsfm.io.store import Store
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import Progress

if TYPE_CHECKING:
    from anchorsfm.frontend.classical.predictor import ClassicalPredictor


@dataclass(frozen=True, kw_only=True)
class ClassicalFrontend:
    """Predictions from classical two-view geometry and stereo: needs neither a GPU nor downloaded weights."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    """Keypoints of every image."""
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    """Matches of every pair and their verification."""
    intrinsics: IntrinsicsConfig = field(default_factory=IntrinsicsConfig)
    """Focal lengths."""
    two_view: TwoViewConfig = field(default_factory=TwoViewConfig)
    """Relative pose of every pair."""
    dense: DenseConfig = field(default_factory=DenseConfig)
    """Dense depth of every pair."""
    workers: WorkerConfig = field(default_factory=WorkerConfig)
    """Threads."""

    def open(self, images: ImageSet, pairs: PairList, store: Store, progress: Progress) -> "ClassicalPredictor":
        """Features, matches, focal lengths, relative poses and their scales; dense depth follows on iteration."""
        from anchorsfm.frontend.classical.opening import open_predictor

        return open_predictor(self, images, pairs, store, progress)
