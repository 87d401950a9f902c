"""A model from one's own matches: no photographs are needed, only their sizes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.api import arguments
from anchorsfm.api.display import progress_of
from anchorsfm.api.images import described_images, open_images
from anchorsfm.api.known import known_cameras
from anchorsfm.api.model import Model
from anchorsfm.api.settings import full_name, setting_names, with_settings
from anchorsfm.colmap.cameras import focal_length_px
from anchorsfm.geometry.cameras import PARAM_NAMES
from anchorsfm.io.store import Store
from anchorsfm.mapping.base import Mapped, MapperInput, MapperSettings
from anchorsfm.mapping.config import MapperName
from anchorsfm.mapping.finish import ModellingSettings, finish_models
from anchorsfm.mapping.mappers import MAPPERS
from anchorsfm.mapping.start_cameras import start_cameras
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.edit import with_colours
from anchorsfm.scene.errors import InputError, NoReconstructionError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import CAMERA_MODELS, Camera, Reconstruction
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.points import colour
from anchorsfm.tracks.sparsify import PairGeometry, PairReport, sparsify

SCALES = ("probability", "score", "log")
CERTAIN = 10.0
"""Confidence of matches that come without one: see `scene.pairs.Matches`."""
_MOST_CERTAIN = 1000.0
_MAX_OUTSIDE = 0.5
"""Share of matches outside the images above which the coordinates must mean something else."""
_REPEATED = 0.2
"""Share of keypoints that several pairs of an image have in common from which on they are a detector's."""
_MOST_DETECTED = 8192
"""Matches of a pair above which they are dense, where nothing else tells."""
_SETTINGS = ("sparsify", "adjust", "seed")
_FORMS = "an array (match, 4) of x_i, y_i, x_j, y_j, or (xy_i, xy_j) or (xy_i, xy_j, confidence)"


def reconstruct_matches(
    matches: Any,
    sizes: Any = None,
    *,
    confidence: str | None = None,
    intrinsics: Any = None,
    camera_model: str = "auto",
    shared_intrinsics: bool | None = None,
    mapper: str = "tracks",
    adjust: bool = True,
    keypoints: bool | None = None,
    pixel_centre: int | float = 0.5,
    photographs: Any = None,
    progress: bool | Progress | None = None,
    **settings: object,
) -> Model:
    """Tracks, poses, triangulation and adjustment from matches of whatever matcher.

    Args:
        matches: pair of images -> its matches; images by name or row, matches as arrays or tensors of original pixels:
            (match, 4) of x_i, y_i, x_j, y_j; (xy_i, xy_j) or (xy_i, xy_j, confidence); or a dictionary with `xy_i`,
            `xy_j` and `confidence`. Rows with NaN or infinite numbers, or outside the images, are left out and counted
            in the model's `warnings`.
        sizes: image name -> (width, height) of all images; or a list of sizes, for images "0", "1" ...; or one size for
            all images that `matches` names. Not needed with `photographs`.
        confidence: the scale of the confidences: "probability" of being right, 0 .. 1; "log", its natural logarithm,
            at most 0; "score", as of MASt3R and DUSt3R: about 1 knows nothing, 5 is doubtful, 10 and more certain.
        intrinsics: what is known, which then stays: for all images or image name -> a focal length in pixels, a matrix
            K (3, 3), or the `Intrinsics` of another model. Otherwise focal lengths start at 1.1 times the long side.
        camera_model: of unknown cameras: a COLMAP model, or "auto": the simplest that fits.
        shared_intrinsics: True: one camera for all images; False: one for each; None: images of equal size share one.
        mapper: "tracks", "incremental" or "global" (COLMAP's).
        adjust: False leaves the poses as the mapper found them.
        keypoints: True: a point has the same coordinates in all pairs, as a detector's have; False: dense matches,
            which are thinned out and merged; None: by looking at them.
        pixel_centre: coordinate of the centre of the first pixel: 0.5 as in COLMAP, 0 as in OpenCV.
        photographs: folder or files for colours; names are those that it has.
        progress: as for `reconstruct`.
        settings: of `SparsifyConfig` and `AdjustConfig`, such as `min_inliers`, and `seed`.

    Raises:
        InputError: an argument cannot be used.
        NoReconstructionError: the matches do not hold two images together; says why.
    """
    config = _config(settings)
    chosen = arguments.choice("mapper", mapper, MAPPERS)
    if chosen == "align":
        raise InputError("mapper = 'align' needs pointmaps: use sparse_global_alignment(), or mapper='tracks'")
    arguments.choice("camera_model", camera_model, ("auto", *CAMERA_MODELS))
    if confidence is not None:
        arguments.choice("confidence", confidence, SCALES)
    adjusts = arguments.flag("adjust", adjust)
    centre = arguments.number("pixel_centre", pixel_centre, low=0.0, high=1.0)
    with progress_of(progress) as shown:
        images = _images(matches, sizes, photographs, shown)
        images = replace(images, camera_index=_camera_index(images, shared_intrinsics))
        known = known_cameras(intrinsics, images)
        given = _read(matches, images, confidence, 0.5 - centre)
        for line in given.warnings:
            shown.warn(line)
        repeated = _is_repeated(given.matches) if keypoints is None else arguments.flag("keypoints", keypoints)
        prepared = _mapper_input(given, images, known, camera_model, config, keypoints=repeated)
        mapped = _map(chosen, prepared, config, shown)
        modelling = ModellingSettings(
            adjust=config.adjust,
            subpixel=None,
            choose_camera_model=camera_model == "auto",
            from_grid=not repeated,
            adjusts=adjusts,
        )
        results = finish_models(mapped.starts, prepared, modelling, shown).results
        models = [result.model for result in results if len(result.model.image_index) >= 2]
        reasons = mapped.reasons | {image: reason for result in results for image, reason in result.dropped.items()}
        if not models:
            first = next(iter(reasons.values()), "no two images share enough tracks")
            raise NoReconstructionError(f"no model could be made from the matches: {first}")
        painted = [colour(m, images) if photographs is not None else _grey(m) for m in models]
    return _named(painted, images, reasons, given.warnings, photographs)


@dataclass(frozen=True, kw_only=True)
class _Given:
    """Matches of all pairs, and what was left out of them."""

    matches: KeypointMatches
    warnings: tuple[str, ...]


def _config(settings: Mapping[str, object]) -> PipelineConfig:
    config = PipelineConfig()
    names = [name for name in setting_names(config) if name.split(".")[0] in _SETTINGS]
    return with_settings(config, {full_name(name, names): value for name, value in settings.items()})


def _images(matches: Any, sizes: Any, photographs: Any, progress: Progress) -> ImageSet:
    if photographs is not None:
        if sizes is not None:
            raise InputError("sizes and photographs: give one of them, photographs have their sizes")
        return open_images(photographs, argument="photographs", progress=progress)
    if sizes is None:
        raise InputError("sizes is missing: expected image name -> (width, height), or photographs")
    if isinstance(sizes, Mapping):
        entries = [(str(name), f"sizes[{name!r}]", size) for name, size in sizes.items()]
    else:
        array = arguments.plain_array("sizes", sizes)
        if array.ndim == 1:
            entries = [(name, "sizes", array) for name in _names_in(matches)]
        else:
            entries = [(str(k), f"sizes[{k}]", size) for k, size in enumerate(array)]
    if len(entries) < 2:
        raise InputError(f"sizes: found {len(entries)} images, expected at least two")
    size_wh = np.stack([_size(place, size) for _, place, size in entries])
    return described_images([name for name, _, _ in entries], size_wh)


def _size(place: str, value: object) -> Int[np.ndarray, "2"]:
    size = arguments.numbers(place, value, "2")
    if size.min() < 1 or not np.array_equal(size, np.round(size)):
        raise InputError(f"{place} = {arguments.short(value)}: expected (width, height) in whole pixels")
    return size.astype(np.int64)


def _names_in(matches: Any) -> list[str]:
    """Names of the images of all pairs, in their order."""
    if not isinstance(matches, Mapping):
        raise InputError(f"matches: expected pair of images -> matches, not {arguments.describe(matches)}")
    ends = [end for pair in matches if isinstance(pair, tuple) for end in pair]
    if ends and all(isinstance(end, (int, np.integer)) for end in ends):
        return [str(k) for k in range(int(max(ends)) + 1)]
    return list(dict.fromkeys(str(end) for end in ends))


def _camera_index(images: ImageSet, shared: bool | None) -> Int[np.ndarray, "image"]:
    if shared is None:
        _, row = np.unique(images.size_wh, axis=0, return_inverse=True)
        order = {camera: k for k, camera in enumerate(dict.fromkeys(row.ravel().tolist()))}
        return np.array([order[camera] for camera in row.ravel().tolist()], np.int64)
    if not arguments.flag("shared_intrinsics", shared):
        return np.arange(images.num_images)
    if len(np.unique(images.size_wh, axis=0)) > 1:
        raise InputError("shared_intrinsics = True: the images have different sizes; expected one size")
    return np.zeros(images.num_images, np.int64)


# ------------------------------------------------------------------------------------------------------ the matches


def _read(matches: Any, images: ImageSet, scale: str | None, shift: float) -> _Given:
    if not isinstance(matches, Mapping) or not matches:
        raise InputError(
            f"matches: expected pair of images -> matches, such as {{('a.jpg', 'b.jpg'): (xy_i, xy_j)}}, "
            f"not {arguments.describe(matches)}"
        )
    parts: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    counts: Counter[str] = Counter()
    for pair, value in matches.items():
        place = f"matches[{arguments.short(pair)}]"
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InputError(f"{place}: expected a pair of images as key, such as ('a.jpg', 'b.jpg') or (0, 1)")
        i, j = (arguments.image_rows(place, end, images.names) for end in pair)
        if i == j or (min(i, j), max(i, j)) in parts:
            problem = "an image is paired with itself" if i == j else "the pair comes twice"
            raise InputError(f"{place}: {problem}")
        xy_i, xy_j, confidence = _one_pair(place, value, scale)
        usable = np.isfinite(xy_i).all(1) & np.isfinite(xy_j).all(1) & np.isfinite(confidence)
        inside = usable & _inside(xy_i + shift, images.size_wh[i]) & _inside(xy_j + shift, images.size_wh[j])
        counts += Counter(given=len(usable), broken=int((~usable).sum()), outside=int((usable & ~inside).sum()))
        _check_units(place, xy_i[usable], images.size_wh[i])
        ends = (xy_i[inside] + shift, xy_j[inside] + shift)
        parts[min(i, j), max(i, j)] = (*(ends if i < j else ends[::-1]), confidence[inside])
    if counts["outside"] > _MAX_OUTSIDE * counts["given"]:
        raise InputError(
            f"matches: {counts['outside']} of {counts['given']} lie outside the images; "
            "expected original pixels (x, y) and sizes (width, height)"
        )
    flat = KeypointMatches(
        image_i=np.concatenate([np.full(len(c), i) for (i, _), (_, _, c) in sorted(parts.items())]),
        image_j=np.concatenate([np.full(len(c), j) for (_, j), (_, _, c) in sorted(parts.items())]),
        xy_i=np.concatenate([xy for _, (xy, _, _) in sorted(parts.items())]),
        xy_j=np.concatenate([xy for _, (_, xy, _) in sorted(parts.items())]),
        confidence=np.concatenate([c for _, (_, _, c) in sorted(parts.items())]),
    )
    _check_scale(flat.confidence, scale)
    lines = [
        f"{counts[kind]} of {counts['given']} matches are left out: {what}"
        for kind, what in (("broken", "their numbers are NaN or infinite"), ("outside", "they lie outside the images"))
        if counts[kind]
    ]
    return _Given(matches=flat, warnings=tuple(lines))


def _one_pair(
    place: str, value: Any, scale: str | None
) -> tuple[Float[np.ndarray, "match 2"], Float[np.ndarray, "match 2"], Float[np.ndarray, "match"]]:
    """Coordinates and confidence as `scene.pairs.Matches` has it."""
    if isinstance(value, Mapping):
        wrong = sorted(map(str, value.keys() - {"xy_i", "xy_j", "confidence"}))
        if wrong or not {"xy_i", "xy_j"} <= value.keys():
            raise InputError(f"{place}: expected a dictionary with xy_i, xy_j and confidence, found {', '.join(value)}")
        value = (value["xy_i"], value["xy_j"], value.get("confidence"))
    if isinstance(value, (tuple, list)) and len(value) in (2, 3) and np.ndim(_first(value)) == 2:
        ends = [arguments.numbers(f"{place}: xy_{k}", value[n], "match 2", finite=False) for n, k in enumerate("ij")]
        given = value[2] if len(value) == 3 else None
    else:
        try:
            both = arguments.numbers(place, value, "match 4", finite=False)
        except InputError as error:
            raise InputError(f"{error}; expected {_FORMS}") from None
        ends, given = [both[:, :2], both[:, 2:]], None
    counts = [len(ends[0]), len(ends[1])]
    if given is None:
        confidence = np.full(counts[0], CERTAIN)
    else:
        values = arguments.numbers(f"{place}: confidence", given, "match", finite=False)
        confidence = _on_our_scale(place, values, scale)
        counts.append(len(confidence))
    if len(set(counts)) > 1:
        raise InputError(f"{place}: xy_i, xy_j and confidence have {', '.join(map(str, counts))} rows; expected equal")
    return ends[0], ends[1], confidence


def _first(value: Sequence[Any]) -> Any:
    first = value[0]
    return arguments.plain_array("matches", first) if hasattr(first, "detach") else first


def _on_our_scale(place: str, values: Float[np.ndarray, "match"], scale: str | None) -> Float[np.ndarray, "match"]:
    """1 / (1 - p) for a probability p: 10 where it is 0.9, 2 where it is a half."""
    if scale is None:
        raise InputError(f"{place}: confidences need their scale: confidence='probability', 'score' or 'log'")
    known = values[np.isfinite(values)] if scale != "log" else values[~np.isnan(values)]
    if scale == "score":
        if len(known) and known.min() < 0:
            raise InputError(f"{place}: confidence {known.min():g}; scores are at least 0")
        return values
    low, high = (0.0, 1.0) if scale == "probability" else (-np.inf, 0.0)
    if len(known) and (known.min() < low or known.max() > high):
        worst = known.max() if known.max() > high else known.min()
        expected = "probabilities are 0 .. 1" if scale == "probability" else "logarithms of probabilities are at most 0"
        raise InputError(f"{place}: confidence {worst:g}; {expected}; is it another scale?")
    probability = values if scale == "probability" else np.exp(values)
    return 1 / np.maximum(1 - probability, 1 / _MOST_CERTAIN)


def _check_scale(confidence: Float[np.ndarray, "match"], scale: str | None) -> None:
    if scale == "score" and len(confidence) and confidence.max() <= 1:
        raise InputError(
            f"confidence = 'score': the largest is {confidence.max():g}, and a score of 1 knows nothing; "
            "are they probabilities (confidence='probability')?"
        )


def _check_units(place: str, xy: Float[np.ndarray, "match 2"], size_wh: Int[np.ndarray, "2"]) -> None:
    if len(xy) > 8 and np.abs(xy).max() <= 1 and size_wh.min() > 16:
        raise InputError(f"{place}: all coordinates are within -1 .. 1; expected original pixels, not normalised ones")


def _inside(xy: Float[np.ndarray, "match 2"], size_wh: Int[np.ndarray, "2"]) -> Bool[np.ndarray, "match"]:
    with np.errstate(invalid="ignore"):
        return np.asarray(((xy >= 0) & (xy <= size_wh)).all(axis=1))


def _is_repeated(matches: KeypointMatches) -> bool:
    """Whether images have the same coordinates in several of their pairs, as a detector's keypoints."""
    image = np.concatenate([matches.image_i, matches.image_j])
    other = np.concatenate([matches.image_j, matches.image_i])
    xy = np.concatenate([matches.xy_i, matches.xy_j])
    neighbours = np.unique(np.stack([image, other]), axis=1)
    if len(np.unique(neighbours[0])) == neighbours.shape[1]:  # no image is in two pairs: only their number tells
        return len(matches.image_i) < _MOST_DETECTED * max(neighbours.shape[1] // 2, 1)
    seen = np.unique(np.column_stack([image, xy, other]), axis=0)
    _, count = np.unique(seen[:, :3], axis=0, return_counts=True)
    return bool((count > 1).mean() > _REPEATED)


# -------------------------------------------------------------------------------------------------------- the model


def _mapper_input(
    given: _Given,
    images: ImageSet,
    known: dict[int, Camera],
    camera_model: str,
    config: PipelineConfig,
    *,
    keypoints: bool,
) -> MapperInput:
    scale = np.maximum(1.0, images.size_wh.max(axis=1) / config.max_image_size)
    focal_px = np.full(images.num_images, np.nan)
    for row, camera in known.items():
        focal_px[images.camera_index == row] = focal_length_px(camera)
    has_centre = all(_is_centred(camera) for camera in known.values())
    sparse = sparsify(
        given.matches,
        config.sparsify,
        pixel_px=scale,
        size_wh=images.size_wh,
        are_keypoints=keypoints,
        focal_px=focal_px if known and has_centre else None,
    )
    tracks = build_tracks(sparse.matches, images.num_images)
    if not tracks.num_points:
        raise NoReconstructionError(f"no two images can be related: {_why(sparse.pairs, config)}")
    frozen = np.zeros(images.num_cameras, bool)
    frozen[list(known)] = True
    return MapperInput(
        images=images,
        cameras=start_cameras(images, focal_px, camera_model, known=known),
        known_camera=frozen,
        matches=sparse.matches,
        tracks=tracks,
        working_scale=scale,
    )


def _is_centred(camera: Camera) -> bool:
    """Whether an essential matrix of centred pixels, without distortion, describes its pairs well."""
    names = PARAM_NAMES.get(camera.model, ())
    values = dict(zip(names, camera.params, strict=True)) if names else {}
    offset = max(abs(values.get("cx", 0) - camera.width / 2), abs(values.get("cy", 0) - camera.height / 2))
    undistorted = camera.model in ("SIMPLE_PINHOLE", "PINHOLE")
    return undistorted and offset < 0.005 * max(camera.width, camera.height)


def _why(pairs: PairReport, config: PipelineConfig) -> str:
    best = int(pairs.verified.argmax()) if len(pairs.verified) else -1
    if best < 0:
        return "there are no matches"
    if pairs.confident[best] < config.sparsify.min_inliers:
        return (
            f"of the {pairs.given.sum()} matches {pairs.confident.sum()} are confident enough "
            f"(sparsify.min_confidence = {config.sparsify.min_confidence:g})"
        )
    rejected = int((pairs.geometry == PairGeometry.REJECTED).sum())
    return (
        f"the matches of {rejected} of {len(pairs.given)} pairs agree on no geometry with "
        f"{config.sparsify.min_inliers} inliers (sparsify.min_inliers)"
    )


def _map(mapper: MapperName, given: MapperInput, config: PipelineConfig, progress: Progress) -> Mapped:
    settings = MapperSettings(
        align=config.align,
        seed=config.seed,
        num_threads=config.adjust.threads_for(given.images.num_images),
        store=Store(None),
    )
    return MAPPERS[mapper](given, settings, progress)


def _grey(model: Reconstruction) -> Reconstruction:
    return with_colours(model, np.full((len(model.points), 3), 128, np.uint8))


def _named(
    models: Sequence[Reconstruction],
    images: ImageSet,
    reasons: Mapping[int, str],
    warnings: Sequence[str],
    photographs: object,
) -> Model:
    placed = {int(image) for model in models for image in model.image_index}
    missing = {
        name: reasons.get(k, "it has no matches that agree with a geometry")
        for k, name in enumerate(images.names)
        if k not in placed
    }
    root = images.root if photographs is not None else None
    others = [Model(model, images.names, photographs=root) for model in models[1:]]
    return Model(models[0], images.names, others=others, unregistered=missing, warnings=warnings, photographs=root)
