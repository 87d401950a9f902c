"""SIFT keypoints with RootSIFT descriptors, one coordinate per physical point.

SIFT: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004. RootSIFT: Arandjelović and
Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012. OpenCV puts (0, 0) at the centre
of the top-left pixel; half a pixel is added at once, so that all coordinates are COLMAP's.
"""

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from anchorsfm.features.base import Features
from anchorsfm.features.config import FeatureConfig
from anchorsfm.io.pictures import load_grey, working_size_wh
from anchorsfm.io.store import digest
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.scene.images import ImageSet

VERSION = 1
"""Raise when results change: what older versions cached is then ignored."""
DESCRIPTOR_NORM = 512.0
"""Norm of a stored descriptor: components of a RootSIFT vector stay below 1/2 in practice and fill 8 bits."""


class SiftDetector:
    """Features of photographs at the size that the settings name: bytes of RootSIFT times DESCRIPTOR_NORM.

    A keypoint with several dominant orientations has several descriptors. Scores are the sizes of image structures.
    """

    is_concurrent = True
    licence: LicenceRecord | None = None

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config
        self.digest = digest("sift", VERSION, config.max_image_size, config.max_keypoints, config.contrast_threshold)

    def detect(self, images: ImageSet, image: int) -> Features:
        """Raises InputError if the photograph cannot be read."""
        size_wh = images.size_wh[image]
        working_wh = working_size_wh(size_wh, self._config.max_image_size or int(size_wh.max()))
        return detect(load_grey(images, image, working_wh), size_wh, self._config)


def detect(grey: UInt8[np.ndarray, "h w"], size_wh: Int[np.ndarray, "2"], config: FeatureConfig) -> Features:
    """Features of an image given at working size; `size_wh` is its size in original pixels."""
    # without precise upscaling OpenCV shifts every keypoint by a quarter of a pixel
    sift = cv2.SIFT.create(contrastThreshold=config.contrast_threshold, enable_precise_upscale=True)
    found, raw = sift.detectAndCompute(grey, None)
    if raw is None or len(found) == 0:
        return _no_features(size_wh)
    scale = size_wh / np.array([grey.shape[1], grey.shape[0]], float)
    # The largest are kept, not those of most contrast: fine texture such as foliage has contrast but seldom matches
    order = np.argsort([-k.size for k in found], kind="stable")[: config.max_keypoints]
    position = (np.array([found[k].pt for k in order], np.float64) + 0.5) * scale
    xy, keypoint = np.unique(position.astype(np.float32), axis=0, return_inverse=True)
    return Features(
        size_wh=size_wh,
        xy=xy,
        descriptor=_root_sift(raw[order]),
        keypoint=keypoint.reshape(-1).astype(np.int32),
        score=np.array([found[k].size for k in order], np.float32),
    )


def _root_sift(raw: Float[np.ndarray, "descriptor 128"]) -> UInt8[np.ndarray, "descriptor 128"]:
    root = np.sqrt(raw / np.maximum(raw.sum(1, keepdims=True), 1e-9))
    return np.clip(np.rint(root * DESCRIPTOR_NORM), 0, 255).astype(np.uint8)


def _no_features(size_wh: Int[np.ndarray, "2"]) -> Features:
    return Features(
        size_wh=size_wh,
        xy=np.zeros((0, 2), np.float32),
        descriptor=np.zeros((0, 128), np.uint8),
        keypoint=np.zeros(0, np.int32),
        score=np.zeros(0, np.float32),
    )
