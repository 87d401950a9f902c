"""What a run keeps of its models so that new photographs can be placed in them."""

from anchorsfm.features.methods import make_detector
from anchorsfm.features.store import FeatureStore
from anchorsfm.frontend.run_settings import RunSettings
from anchorsfm.localisation.index import VERSION, IndexSettings, make_index
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.modelling import Finished
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress


def keep_descriptors(
    finished: Finished, images: ImageSet, config: PipelineConfig, folder: RunFolder, progress: Progress
) -> None:
    """Write the descriptors of every model's points, where the points are SIFT's and the settings want it."""
    if not config.keep_descriptors or config.frontend != "classical":
        return
    classical = config.classical.for_run(RunSettings(max_image_size=config.max_image_size, seed=config.seed))
    if classical.features.first_detector != "sift":
        return
    detector = make_detector(classical.features)
    features = FeatureStore(images=images, detector=detector, store=folder.store)
    settings = IndexSettings(
        version=VERSION,
        max_image_size=classical.features.max_image_size or config.max_image_size,
        max_keypoints=classical.features.max_keypoints,
        contrast_threshold=classical.features.contrast_threshold,
        max_ratio=classical.matching.max_ratio,
    )
    with progress.stage("descriptors of points", len(finished.models)) as advance:
        for number, model in enumerate(finished.models):
            folder.write_index(number, make_index(model, features.features, settings))
            advance(1)


def keep_errors(finished: Finished, images: ImageSet, folder: RunFolder) -> None:
    """Keep what errors the cameras of each model may have together, where that is known."""
    for number, (model, uncertainty) in enumerate(zip(finished.models, finished.uncertainties, strict=True)):
        if uncertainty.modes is not None:
            folder.write_errors(number, uncertainty.modes, [images.names[image] for image in model.image_index])
