"""What a run gives to its mapper, and from its models to finished ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from anchorsfm.frontend.base import PairPredictor
from anchorsfm.geometry.transforms import compose, invert, rotation_angle_deg
from anchorsfm.io.store import Store
from anchorsfm.mapping.base import DepthInput, MapperInput, MapperSettings, Start
from anchorsfm.mapping.config import POSE_MAPPERS
from anchorsfm.mapping.control import Controlled, with_control
from anchorsfm.mapping.evidence import PairEvidence
from anchorsfm.mapping.finish import ModellingSettings, finish_models
from anchorsfm.mapping.georeference import Georeferenced, compare_in_frame, georeference
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.mapping.level import levelled
from anchorsfm.mapping.pose_check import name_far_poses
from anchorsfm.mapping.start_cameras import start_cameras
from anchorsfm.report.control import control_lines
from anchorsfm.report.places import Places, describe_places, placement_lines, view_lines
from anchorsfm.results.record import UpReport
from anchorsfm.run.beginning import Beginning
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.earlier import KeptFrame
from anchorsfm.run.known_poses import LineSearch, adjusted_along_lines
from anchorsfm.run.predictions import Predicted
from anchorsfm.scene.edit import with_poses
from anchorsfm.scene.ground import GroundPoints
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.adjust import AdjustResult, SettledFocal
from anchorsfm.tracks.build import build_tracks
from anchorsfm.tracks.degeneracy import pairs_without_motion
from anchorsfm.tracks.focal_prior import FocalPriors, JudgedModel, settle_focal_lengths
from anchorsfm.tracks.points import colour
from anchorsfm.tracks.sparsify import sparsify
from anchorsfm.tracks.uncertainty import ModelUncertainty, estimate_uncertainty


def mapper_input(
    predicted: Predicted,
    predictor: PairPredictor,
    images: ImageSet,
    known: KnownCameras,
    config: PipelineConfig,
    progress: Progress,
) -> MapperInput:
    """Keypoints, tracks, and the cameras they start from; warns of pairs that are one picture."""
    scale = _working_scale(predictor, images, config)
    matches = sparsify(
        predicted.matches,
        config.sparsify,
        pixel_px=scale,
        size_wh=images.size_wh,
        are_keypoints=predictor.detects_keypoints,
        are_verified=predictor.detects_keypoints,
        scores="confidence",
    ).matches
    depth = None
    if predicted.scene is not None:
        depth = DepthInput(scene=predicted.scene, grid=predictor.grid, digest=predictor.digest, known=known)
    given = MapperInput(
        images=images,
        cameras=_cameras(predicted, predictor, images, known, config),
        known_camera=known.frozen_cameras(np.arange(images.num_cameras)),
        matches=matches,
        tracks=build_tracks(matches, images.num_images),
        working_scale=scale,
        depth=depth,
        known=known,
        coarse=predicted.coarse,
    )
    _name_still_pairs(given, progress)
    return given


def mapper_settings(config: PipelineConfig, num_images: int, store: Store, database: Path | None) -> MapperSettings:
    """The settings of mappers; `database`: where the matches were written, if they were."""
    return MapperSettings(
        align=config.align,
        camera_model=config.camera_model,
        focal_px=config.kept_focal_px,
        seed=config.seed,
        num_threads=config.adjust.threads_for(num_images),
        store=store,
        database=database,
    )


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The models of a run, largest first."""

    models: tuple[Reconstruction, ...] = ()
    """Coloured."""
    results: tuple[AdjustResult, ...] = ()
    """How each came out of its adjustment."""
    uncertainties: tuple[ModelUncertainty, ...] = ()
    georeferenced: tuple[Georeferenced | None, ...] = ()
    """What recorded positions came to; None where none are looked at."""
    controlled: tuple[Controlled, ...] = ()
    """What ground control points came to; empty where there are none."""
    up: tuple[UpReport | None, ...] = ()
    """Why z is up in each; None where the frame is any, or given."""
    evidence: tuple[PairEvidence, ...] = ()
    """What the verified matches and photographs of each say about it."""
    dropped: dict[int, str] = field(default_factory=dict)
    """Image index -> why it is in no model."""


def finish(
    starts: Sequence[Start],
    given: MapperInput,
    predictor: PairPredictor,
    config: PipelineConfig,
    beginning: Beginning,
    store: Store,
    progress: Progress,
    ground: GroundPoints | None = None,
    search: LineSearch | None = None,
) -> Finished:
    """Adjust the models of the mapper; those of fewer than two views are none.

    `ground`: control points, if any; `search`: how more matches are found with poses that are known, if they are.
    """
    from_grid = not predictor.detects_keypoints
    settings = ModellingSettings(
        adjust=config.adjust,
        subpixel=config.subpixel if config.refines_keypoints(from_grid=from_grid) else None,
        coarse_subpixel=None if config.refine_keypoints == "off" else config.subpixel,
        choose_camera_model=config.camera_model == "auto" and not (beginning.keeps and given.known_camera.all()),
        focal_px=config.kept_focal_px,
        from_grid=from_grid,
        adjusts=config.bundle_adjustment,
        goes_on=beginning.keeps,
        store=store,
    )
    adjusted = finish_models(starts, given, settings, progress)
    adjusted, given = adjusted_along_lines(adjusted, given, settings, search, progress)
    for result in adjusted.results if config.mapper == "known" else ():
        name_far_poses(result.model, given, progress)
    for change in adjusted.changes:
        progress.warn(f"{', '.join(given.images.names[image] for image in change.images)}: {change.what}")
    found = zip(adjusted.results, adjusted.evidence, strict=True)
    kept = [(result, evidence) for result, evidence in found if len(result.model.image_index) >= 2]
    judged, georeferenced, ups = [], [], []
    controlled: list[Controlled] = []
    for number, (result, _) in enumerate(kept):
        control: Controlled | None = None
        frame = beginning.frame_of(result)
        if frame is not None and result.held.pose.any() and beginning.keeps:
            model, place = _in_frame(result, frame, given.images, config)
        else:
            model, place, control = _with_records(result, given.images, config, ground, progress)
            controlled += [] if control is None else [control]
            if place is not None and place.mode != "check":
                frame = None  # that of the recorded positions is found anew
        if frame is not None and frame.is_metric:
            model = replace(model, uncertainty=replace(model.uncertainty, metric=True))
        model, up = (model, frame.up) if frame is not None else _level(model, place, control, given, config)
        if (
            config.up in ("plane", "manhattan")
            and up is not None
            and up.source not in ("plane", "manhattan", "positions")
        ):
            progress.warn(f"model {number}: its points do not show a {config.up}, so up is what the cameras say")
        judged.append(model)
        georeferenced.append(place)
        ups.append(up)
    _name_placement(judged, georeferenced, given.images, config, progress)
    name_undetermined(judged, progress)
    if ground is not None:
        _name_control(controlled, ground, progress)
    for number, one in enumerate(judged):
        for said in _rig_lines(one.result.model, given.images):
            progress.note(f"model {number}: {said}")
    return Finished(
        models=tuple(colour(one.result.model, given.images, max_size=config.max_image_size) for one in judged),
        results=tuple(one.result for one in judged),
        uncertainties=tuple(one.uncertainty for one in judged),
        georeferenced=tuple(georeferenced),
        controlled=tuple(controlled),
        up=tuple(ups),
        evidence=tuple(evidence for _, evidence in kept),
        dropped={image: reason for result in adjusted.results for image, reason in result.dropped.items()},
    )


def make_places(finished: Finished, images: ImageSet, config: PipelineConfig) -> Places | None:
    """Where the models are on the Earth; None where no model is in the frame of recorded positions."""
    if images.geo is None or all(found is None or found.mode == "check" for found in finished.georeferenced):
        return None
    return describe_places(finished.models, finished.georeferenced, images.geo, images.names, config.epsg)


def _in_frame(
    result: AdjustResult, frame: KeptFrame, images: ImageSet, config: PipelineConfig
) -> tuple[JudgedModel, Georeferenced | None]:
    """A model in the frame of an earlier one. Poses that stay have the bits they had, and are as uncertain as if they
    had been found now."""
    result = replace(result, model=with_poses(result.model, frame.cam_from_world))
    is_known = config.known.model is not None and config.known.freeze_intrinsics
    camera = result.held.camera if is_known else np.zeros_like(result.held.camera)
    free = replace(result.held, pose=np.zeros_like(result.held.pose), camera=camera)
    uncertainty = estimate_uncertainty(replace(result, held=free))
    judged = JudgedModel(result=result, uncertainty=uncertainty)
    if images.geo is None:
        return judged, None
    if (way := frame.enu_from_model) is not None:
        is_in_it = np.allclose(way.matrix, np.eye(4))
        found = compare_in_frame(judged, images.geo, None if is_in_it else way)
        return judged, replace(found, mode="control") if frame.by_control else found
    return georeference(judged, result, images.geo, "check", config.adjust, FocalPriors.of(result.model, images))


def _with_records(
    result: AdjustResult, images: ImageSet, config: PipelineConfig, ground: GroundPoints | None, progress: Progress
) -> tuple[JudgedModel, Georeferenced | None, Controlled | None]:
    """A finished model with control points and what cameras recorded: focal lengths and positions."""
    focal = FocalPriors.of(result.model, images)
    judged = settle_focal_lengths(result, focal, config.adjust, images)
    control = None
    if ground is not None:
        judged, control = with_control(judged, ground, config.adjust)
    if images.geo is None:
        return judged, None, control
    if control is None or control.problem is not None:
        return *georeference(judged, result, images.geo, config.gps, config.adjust, focal, progress), control
    return judged, replace(compare_in_frame(judged, images.geo), mode="control"), control


def _level(
    judged: JudgedModel,
    place: Georeferenced | None,
    control: Controlled | None,
    given: MapperInput,
    config: PipelineConfig,
) -> tuple[JudgedModel, UpReport | None]:
    """A finished model with z up, and why it is; as it is where its frame was given."""
    is_surveyed = control is not None and control.problem is None
    if is_surveyed or (place is not None and place.mode != "check"):
        return judged, UpReport(source="positions", deviation_deg=None)
    held, known = judged.result.held, {} if given.known is None else given.known.poses
    has_poses = config.mapper in POSE_MAPPERS and any(int(k) in known for k in judged.result.model.image_index)
    if config.up == "off" or held.sets_frame or held.pose.any() or has_poses:
        return judged, None
    judged, up = levelled(judged, config.up, given.images.down)
    return judged, UpReport(source=up.source, deviation_deg=round(up.deviation_deg, 2))


def _name_placement(
    judged: Sequence[JudgedModel],
    georeferenced: Sequence[Georeferenced | None],
    images: ImageSet,
    config: PipelineConfig,
    progress: Progress,
) -> None:
    """Say what was done with recorded positions."""
    for number, (one, found) in enumerate(zip(judged, georeferenced, strict=True)):
        if found is None:
            continue
        lines = placement_lines(found, [images.names[k] for k in one.result.model.image_index], config.gps)
        if images.geo is not None and images.geo.view_deg is not None:
            lines += view_lines(one.result.model, found, images.geo.view_deg)
        for line in lines:
            (progress.warn if line.is_warning else progress.note)(f"model {number}: {line.text}")


def _name_control(controlled: Sequence[Controlled], ground: GroundPoints, progress: Progress) -> None:
    """Say how the models agree with ground control points."""
    for number, found in enumerate(controlled):
        for line in control_lines(found, ground):
            (progress.warn if line.is_warning else progress.note)(f"model {number}: {line.text}")


def _rig_lines(model: Reconstruction, images: ImageSet) -> Iterator[str]:
    """Poses of the cameras in rigs that were adjusted, as far as one line says them."""
    rigs = model.rigs
    if rigs is None:
        return
    for sensor in np.unique(rigs.sensor[model.image_index]).tolist():
        reference = int(np.flatnonzero(rigs.rig == rigs.rig[sensor])[0]) if sensor >= 0 else sensor
        if sensor == reference or rigs.is_fixed[sensor]:
            continue
        names = [images.names[np.flatnonzero(rigs.sensor == s)[0]] for s in (sensor, reference)]
        if not rigs.is_known[sensor]:
            yield f"the pose of the camera of {names[0]} in its rig was not found: too few shots show it"
            continue
        pose = compose(rigs.sensor_from_rig[sensor], invert(rigs.sensor_from_rig[reference]))
        turn = float(rotation_angle_deg(pose[None, :, :3])[0])
        yield (
            f"the camera of {names[0]} is {np.linalg.norm(pose[:, 3]):.4g} from that of {names[1]} in its rig, "
            f"turned by {turn:.2f} degrees"
        )


def name_undetermined(judged: Sequence[JudgedModel], progress: Progress) -> None:
    """Warnings about focal lengths that matches do not determine: recorded, shown by straight edges, or assumed."""
    kept = [found for one in judged for found in one.result.focal if found is not None and found.is_kept]
    assumed = [found for found in kept if found.is_assumed]
    by_lines = [found for found in kept if found.is_from_lines]
    recorded = [found for found in kept if not found.is_assumed and not found.is_from_lines]
    if recorded:
        first = recorded[0]
        progress.warn(
            f"the photographs do not determine the focal length{_and_more(recorded)}: {_alone(first)}, the recorded "
            f"{first.prior_px:.0f} px are kept within their deviation of {first.prior_sigma_px:.0f} px"
        )
    if by_lines:
        first = by_lines[0]
        progress.warn(
            f"matches do not determine the focal length{_and_more(by_lines)}: {_alone(first)}; straight edges at right "
            f"angles show {first.prior_px:.0f} px +- {first.prior_sigma_px:.0f}: {first.focal_px:.0f} px +- "
            f"{first.sigma_px:.0f} are used; if you know the focal length, give --focal-px"
        )
    if assumed:
        first = assumed[0]
        progress.warn(
            f"the photographs do not determine the focal length{_and_more(assumed)}: {_alone(first)}; "
            f"{first.focal_px:.0f} px +- {first.sigma_px:.0f} are assumed (most lenses have {first.prior_px:.0f} px +- "
            f"{first.prior_sigma_px:.0f}), and depths and angles of the model are as uncertain; if you know the focal "
            "length, give --focal-px"
        )


def _and_more(found: Sequence[SettledFocal]) -> str:
    return "" if len(found) == 1 else f" (and of {len(found) - 1} more cameras)"


def _alone(found: SettledFocal) -> str:
    if not np.isfinite(found.free_px):
        return "alone they say next to nothing"
    return f"alone they say {found.free_px:.0f} px +- {found.free_sigma_px:.0f}"


def _name_still_pairs(given: MapperInput, progress: Progress) -> None:
    """Pictures that are the same but for their encoding, or taken from one place, are no evidence of depth."""
    still = pairs_without_motion(given.matches, given.working_scale, given.images.size_wh)
    if still:
        i, j = still[0]
        more = "" if len(still) == 1 else f" (and {len(still) - 1} more such pairs)"
        names = given.images.names
        progress.warn(f"{names[i]} and {names[j]} are the same picture{more}: together they say nothing about depth")


def _working_scale(predictor: PairPredictor, images: ImageSet, config: PipelineConfig) -> Float[np.ndarray, "image"]:
    """Original pixels per pixel of the image that keypoints were found on: the unit of their noise."""
    if not predictor.detects_keypoints:
        return 1 / predictor.grid.scale.mean(axis=1)
    detector_size = config.classical.features.max_image_size or config.max_image_size
    return np.maximum(1.0, images.size_wh.max(axis=1) / detector_size)


def _cameras(
    predicted: Predicted, predictor: PairPredictor, images: ImageSet, known: KnownCameras, config: PipelineConfig
) -> tuple[Camera, ...]:
    """Where the intrinsics of the ImageSet's cameras start: given, or with the front end's focal length."""
    focal_px = predictor.focal_px
    if focal_px is None and config.focal_px is not None:
        focal_px = np.full(images.num_images, config.focal_px)
    elif focal_px is None:
        views = [None] * images.num_images if predicted.scene is None else list(predicted.scene.views)
        focal = [np.nan if view is None else view.focal_px for view in views]
        focal_px = np.array(focal, np.float64) / predictor.grid.scale.mean(axis=1)
    return start_cameras(images, focal_px, config.camera_model, known=known.cameras, grid=predictor.grid)
