"""Cameras that the front end of a run went by, kept for runs that go on from it: focal lengths and distortions.

Those that it found from its pairs can be found again, at the cost of reading everything that is known of them: they are
kept together with all that they follow from. Those that it was given by an earlier run cannot.
"""

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.io.store import Store, digest
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList

_GIVEN, _FOUND = "front-end-cameras", "front-end-cameras-found"

FrontEndCameras = tuple[Float[np.ndarray, "image"], Float[np.ndarray, "image 2"]]
"""Focal lengths in original pixels, and distortions as in `ImageSet.distortion_prior`."""


def front_end_cameras(predictor: PairPredictor, images: ImageSet) -> FrontEndCameras | None:
    """What a front end goes by; None if it needs no cameras."""
    if predictor.focal_px is None:
        return None
    distortion = predictor.grid.distortion
    return predictor.focal_px, np.zeros((images.num_images, 2)) if distortion is None else distortion.coefficient


def keep_given(predictor: PairPredictor, frontend: Frontend, images: ImageSet, pairs: PairList, store: Store) -> None:
    """Keep cameras of a front end that was given those of an earlier run."""
    _keep(_GIVEN, _key_of_pairs(frontend, images, pairs), predictor, images, store)


def keep_found(predictor: PairPredictor, frontend: Frontend, images: ImageSet, pairs: PairList, store: Store) -> None:
    """Keep cameras that a front end found from its pairs and what is known of the photographs."""
    _keep(_FOUND, _key_of_all(frontend, images, pairs), predictor, images, store)


def kept_cameras(frontend: Frontend, images: ImageSet, pairs: PairList, store: Store) -> FrontEndCameras | None:
    """Cameras that were kept of the same photographs, in any order, and pairs; None if there are none."""
    stored = store.load(_GIVEN, _key_of_pairs(frontend, images, pairs))
    stored = stored or store.load(_FOUND, _key_of_all(frontend, images, pairs))
    if stored is None:
        return None
    place = np.argsort(_order(images))
    return stored["focal_px"][place], stored["distortion"][place]


def _keep(kind: str, key: str, predictor: PairPredictor, images: ImageSet, store: Store) -> None:
    found = front_end_cameras(predictor, images)
    if found is not None and store.load(kind, key) is None:
        order = _order(images)
        store.save(kind, key, {"focal_px": found[0][order], "distortion": found[1][order]})


def _order(images: ImageSet) -> Int[np.ndarray, "image"]:
    """By content: the photographs of a run may be listed in another order."""
    return np.argsort(images.contents, kind="stable")


def _key_of_pairs(frontend: Frontend, images: ImageSet, pairs: PairList) -> str:
    order = _order(images)
    listed = np.unique(np.sort(np.argsort(order)[pairs.index], axis=1), axis=0)
    return digest("cameras of the front end", frontend, [images.contents[k] for k in order], listed)


def _key_of_all(frontend: Frontend, images: ImageSet, pairs: PairList) -> str:
    order = _order(images)
    known = [
        None if values is None else values[order]
        for values in (images.focal_prior_px, images.focal_deviation, images.distortion_prior, images.focal_is_exact)
    ]
    _, first, camera = np.unique(images.camera_index[order], return_index=True, return_inverse=True)
    return digest(_key_of_pairs(frontend, images, pairs), images.size_wh[order], first[camera], known)
