"""Any COLMAP model with its photographs made ready for localisation: descriptors of its points, found anew.

Keypoints are SIFT's, so a model of SIFT keypoints, ours or COLMAP's, has most of its points described. Of others, whose
observations lie elsewhere, those near a keypoint are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anchorsfm.export.photographs import open_photographs
from anchorsfm.features.config import DescriptorMatchingConfig, FeatureConfig
from anchorsfm.features.methods import make_detector
from anchorsfm.features.store import FeatureStore
from anchorsfm.io.layout import LOCALISATION
from anchorsfm.io.owned import OwnedFolder, is_ours
from anchorsfm.io.store import Store
from anchorsfm.io.workers import single_threaded_libraries
from anchorsfm.localisation.index import VERSION, IndexSettings, ModelIndex, make_index, write_index
from anchorsfm.localisation.run import index_path
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT, Progress

_FEW = 0.2
"""Share of the observations with a descriptor below which a model is not SIFT's."""


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A model with descriptors."""

    path: Path
    """Their file."""
    num_views: int
    num_points: int
    """That have a descriptor."""


class IndexPlace:
    """Where the descriptors of a model go: `localisation` in its output folder, or beside the model."""

    def __init__(self, stored: StoredModel) -> None:
        self.path = index_path(stored)
        root = self.path.parent.parent
        if is_ours(root):
            self._owned, self._name = OwnedFolder(root, is_output=False), f"{LOCALISATION}/{self.path.name}"
        else:
            self._owned, self._name = OwnedFolder(self.path.parent, is_output=False), self.path.name

    def require_ready(self) -> None:
        """Raise StorageError, before any work is done, if the file cannot be put here or would replace another one."""
        self._owned.require_ours()
        self._owned.require_writable()
        self._owned.complete()
        self._owned.require_free([self._name], [self._name])

    def write(self, index: ModelIndex) -> None:
        """Raises StorageError if that cannot be done."""
        with self._owned.publication() as publication:
            write_index(publication.path / self._name, index)
            publication.publish([self._name])


def prepare(
    folder: Path, photographs: Path | None, *, max_image_size: int = 1024, progress: Progress = SILENT
) -> PreparedModel:
    """Find and keep the descriptors of the points of the largest model that a folder stands for.

    Args:
        folder: a COLMAP model, a folder of models, or an output folder.
        photographs: folder that the names of the images are relative to; None: as report.json says.
        max_image_size: long side in pixels at which photographs are looked at, and new ones will be.
        progress: receives stages and warnings.

    Raises:
        InputError: the model or a photograph cannot be used, or hardly any of its points is near a keypoint.
        StorageError: the descriptors cannot be written, or a file of somebody else is in their place.
    """
    stored = max(read_models(folder), key=lambda entry: (len(entry.names), -entry.number))
    place = IndexPlace(stored)
    place.require_ready()
    images = open_photographs(stored, photographs if photographs is not None else stored.image_root).images
    features = FeatureConfig(max_image_size=max_image_size)
    settings = IndexSettings(
        version=VERSION,
        max_image_size=max_image_size,
        max_keypoints=features.max_keypoints,
        contrast_threshold=features.contrast_threshold,
        max_ratio=DescriptorMatchingConfig().max_ratio,
    )
    found = FeatureStore(images=images, detector=make_detector(settings.features), store=Store(None))
    with single_threaded_libraries(), progress.stage("descriptors of points", images.num_images) as advance:
        index = make_index(stored.model, lambda image: (advance(1), found.features(image))[1], settings)
    described = len(np.unique(index.point))
    if described < _FEW * len(stored.model.points):
        raise InputError(
            f"only {described} of the {len(stored.model.points)} points of {stored.folder} are near SIFT keypoints, "
            "so photographs could not be placed by them: make the model with SIFT keypoints, or look at larger "
            f"pictures than {max_image_size} px"
        )
    place.write(index)
    return PreparedModel(path=place.path, num_views=index.num_views, num_points=described)
