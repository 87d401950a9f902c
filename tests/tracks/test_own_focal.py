"""Focal lengths of their own for views that share a camera: where there are any, and where there are none."""

from dataclasses import replace

import numpy as np

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.colmap.cameras import make_camera
from anchorsfm.geometry.transforms import camera_centres, fit_similarity
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.own_focal import OwnFocalLengths, own_focal_lengths
from point_scene import make_lens_scene

FOCAL_PX, LENS = 1500.0, -0.03
SLOW_ZOOM = np.linspace(1, 1.24, 9)


def scene(zooms: np.ndarray) -> Reconstruction:
    """True cameras, one a view."""
    cameras = [
        Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(zoom * FOCAL_PX, 800.0, 600.0, LENS))
        for zoom in zooms.tolist()
    ]
    return make_lens_scene(tuple(cameras), len(zooms), 600, extent=2.5, arc_deg=60.0, seed=3)


def of_one_camera(truth: Reconstruction, lens: float | None = None) -> Reconstruction:
    """Adjusted as if all views had one camera, which hides what is zoomed; with a lens that it keeps, or its own."""
    camera = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(FOCAL_PX, 800.0, 600.0, lens or 0.0))
    shared = replace(truth, cameras=(camera,), camera_index=np.zeros(len(truth.image_index), np.int64))
    return adjust(shared, BundleOptions(loss_scale_px=0.5, refine_distortion=lens is None))[0]


def own(
    model: Reconstruction, truth: Reconstruction, *, asked: np.ndarray | None = None, started: Camera | None = None
) -> OwnFocalLengths | None:
    views = len(model.image_index)
    return own_focal_lengths(
        model,
        truth.tracks,
        np.ones(views, bool) if asked is None else asked,
        [started or truth.cameras[0]] * views,
        Held.nothing(model),
        AdjustConfig(),
        working_scale=1.0,
    )


def test_views_of_one_lens_have_none() -> None:
    truth = scene(np.ones(9))
    assert own(of_one_camera(truth), truth) is None


def test_a_slow_zoom_is_found() -> None:
    """As are the poses and the points that one focal length has bent."""
    truth = scene(SLOW_ZOOM)
    shared = of_one_camera(truth)
    found = own(shared, truth, started=make_camera("SIMPLE_RADIAL", FOCAL_PX, 1600, 1200))
    assert found is not None
    assert len(found.model.cameras) == 9 and found.model.camera_index.tolist() == list(range(9))
    # what the lens is taken for moves all focal lengths together
    np.testing.assert_allclose(found.focal_px, FOCAL_PX * SLOW_ZOOM, rtol=0.015)
    np.testing.assert_allclose(found.focal_px / found.focal_px[0], SLOW_ZOOM, rtol=0.004)
    assert found.deviation.shape == (9,) and (found.deviation < 0.005).all()
    assert worst_error(found.model, truth) < 0.002 < 0.02 < worst_error(shared, truth)


def test_a_lens_that_the_zoom_has_bent_is_not_kept() -> None:
    """The lens that views had before anything was adjusted is better than that of the bent model, which stays bent."""
    truth = scene(SLOW_ZOOM)
    bent = of_one_camera(truth, lens=0.08)
    found = own(bent, truth)
    assert found is not None and {camera.params[3] for camera in found.model.cameras} == {LENS}
    np.testing.assert_allclose(found.focal_px, FOCAL_PX * SLOW_ZOOM, rtol=0.004)
    without = own(bent, truth, started=bent.cameras[0])
    assert without is not None and np.abs(without.focal_px / (FOCAL_PX * SLOW_ZOOM) - 1).min() > 0.02


def test_views_that_are_not_asked_share_their_camera() -> None:
    asked = np.arange(9) >= 4
    zooms = np.where(asked, SLOW_ZOOM, 1.0)
    truth = scene(zooms)
    found = own(of_one_camera(truth), truth, asked=asked)
    assert found is not None and found.model.camera_index.tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(found.focal_px, FOCAL_PX * zooms, rtol=0.004)


def worst_error(model: Reconstruction, truth: Reconstruction) -> float:
    """Largest error of a position, over the extent of all."""
    ours, theirs = camera_centres(model.cam_from_world), camera_centres(truth.cam_from_world)
    scale, pose = fit_similarity(ours, theirs)
    error = scale * ours @ pose[:, :3].T + pose[:, 3] - theirs
    return float(np.linalg.norm(error, axis=1).max() / np.linalg.norm(np.ptp(theirs, axis=0)))
