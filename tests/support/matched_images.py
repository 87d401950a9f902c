"""What mappers get, made of matches alone: images of one camera without photographs."""

from pathlib import Path

import numpy as np

from anchorsfm.mapping.base import MapperInput
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks.build import KeypointMatches, build_tracks


def mapper_input(matches: KeypointMatches, num_images: int, camera: Camera, *, is_known: bool) -> MapperInput:
    images = ImageSet(
        root=Path("/no/such/folder"),
        names=tuple(f"{k}.jpg" for k in range(num_images)),
        size_wh=np.tile([camera.width, camera.height], (num_images, 1)),
        camera_index=np.zeros(num_images, np.int64),
        focal_prior_px=np.full(num_images, np.nan),
        digests=("",) * num_images,
    )
    return MapperInput(
        images=images,
        cameras=(camera,),
        known_camera=np.array([is_known]),
        matches=matches,
        tracks=build_tracks(matches, num_images),
        working_scale=np.ones(num_images),
    )
