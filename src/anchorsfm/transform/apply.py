"""Everything of one model in an output folder, written anew in another frame."""

import io
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.move import move_model
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.io.json_files import read_json
from anchorsfm.io.layout import CAMERAS_GEOJSON, CAMERAS_KML, GEOREFERENCE, Layout
from anchorsfm.io.names import require_inside
from anchorsfm.io.ply import PointCloud, read_mesh, read_ply, write_mesh, write_ply
from anchorsfm.io.store import storage_error, to_json, write_atomic
from anchorsfm.localisation.index import read_index, with_points_kept, write_index
from anchorsfm.localisation.run import index_remedy
from anchorsfm.report.figures import KINEMATIC, model_figures, top_view
from anchorsfm.report.json_text import report_json
from anchorsfm.report.numbers import along_axes, errors_per_view
from anchorsfm.report.page import rows_in_report
from anchorsfm.results.errors import read_errors, write_errors
from anchorsfm.results.model import StoredModel, read_stored_model
from anchorsfm.results.run import StoredRun
from anchorsfm.scene.edit import observations_per_view
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.transform.earth import PlaceOnEarth
from anchorsfm.transform.find import Crop

_UP = np.array([0.0, 0.0, 1.0])
_SAME = 1e-9
"""Of the way to the frame of recorded positions and none."""
_NORMAL = ("nx", "ny", "nz")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens to a model."""

    similarity: Similarity
    crop: Crop
    up: dict[str, Any] | None
    """What the report says of up afterwards."""
    metric: bool
    """Whether the unit is the metre afterwards."""
    was_metric: bool
    rescales_metres: bool
    """Whether distances or positions say what a metre is, so that metres are others than before."""
    place: PlaceOnEarth | None = None
    """What is to be said of the model's place on the Earth; None: what was said, with the way from the new frame."""

    @property
    def scale(self) -> float:
        return self.similarity.scale

    @property
    def moves(self) -> bool:
        """Whether the frame is another afterwards."""
        return bool((self.similarity.matrix != np.eye(4)).any())


def write_changed(source: Layout, made: Layout, files: Sequence[str], number: int, change: Change) -> None:
    """Write all of the output folder `source` into `made`, with one model changed.

    Files that do not change are linked, or copied where that is not possible. The page and transform.json are left to
    the caller.

    Args:
        source: an output folder.
        made: where its new content grows.
        files: what there is, relative to the folder.
        number: of the model.
        change: what happens to it.

    Raises:
        InputError: a file is damaged.
        StorageError: a file cannot be written.
    """
    before = read_stored_model(source.model(number), number=number, run=StoredRun(source.root))
    kept = move_model(source.model(number), made.model(number), change.similarity, change.crop.keeps)
    after = read_stored_model(made.model(number), number=number)
    if source.cloud(number).is_file():
        _write_cloud(made.cloud(number), read_ply(source.cloud(number)), change)
    if source.mesh(number).is_file():
        _write_mesh(source.mesh(number), made.mesh(number), change)
    if source.depth_cameras.is_file():
        _write_depth_maps(source, made, number, change)
    if source.localisation(number).is_file() and not change.crop.is_everything:
        _write_index(source.localisation(number), made.localisation(number), before, kept)
    axes = _write_errors(source.errors(number), made.errors(number), before, change)
    if source.uncertainty.is_file():
        entries = read_json(source.uncertainty)
        if isinstance(entries, list) and number < len(entries):
            entries[number] = moved_uncertainty(entries[number], change, axes)
        write_atomic(made.uncertainty, to_json(entries))
    if change.place is not None:
        change.place.write(made)
        files = [name for name in files if name not in (GEOREFERENCE, CAMERAS_GEOJSON, CAMERAS_KML)]
    elif source.georeference.is_file():
        write_atomic(made.georeference, to_json(_moved_places(read_json(source.georeference), number, change)))
    report = StoredRun(source.root).report
    write_atomic(made.report, report_json(_moved_report(report, number, after, change, axes)))
    _link_others(source, made, files)


def _link_others(source: Layout, made: Layout, files: Sequence[str]) -> None:
    """Put every file that has not been written into the new folder as it is."""
    for name in files:
        place = made.root / name
        if place.exists():
            continue
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                os.link(source.root / name, place, follow_symlinks=False)
                continue
            shutil.copyfile(source.root / name, place)
        except OSError as error:
            raise storage_error(place, error) from error


# -------------------------------------------------------------------------------------------------------------- clouds


def _write_cloud(path: Path, cloud: PointCloud, change: Change) -> None:
    xyz = change.similarity.points(cloud.xyz.astype(np.float64))
    kept = change.crop.keeps(xyz)
    normal = _columns(cloud, _NORMAL)
    confidence = cloud.others.get("confidence")
    rgb = np.full((len(xyz), 3), 128, np.uint8) if cloud.rgb is None else cloud.rgb
    write_ply(
        path,
        xyz[kept],
        rgb[kept],
        normal=None if normal is None else (normal @ change.similarity.rotation.T)[kept],
        confidence=None if confidence is None else confidence[kept],
    )


def _columns(cloud: PointCloud, names: Sequence[str]) -> Float[np.ndarray, "point 3"] | None:
    if not all(name in cloud.others for name in names):
        return None
    return np.stack([cloud.others[name].astype(np.float64) for name in names], axis=1)


def _write_mesh(source: Path, target: Path, change: Change) -> None:
    """Faces with a corner outside of a crop go."""
    vertices, faces = read_mesh(source)
    xyz = change.similarity.points(vertices.xyz)
    faces = faces[change.crop.keeps(xyz)[faces].all(axis=1)]
    used, corner = np.arange(len(xyz)), faces
    if not change.crop.is_everything:
        used, corner = np.unique(faces, return_inverse=True)
    others = {name: values[used] for name, values in vertices.others.items()}
    if (normal := _columns(vertices, _NORMAL)) is not None:
        turned = (normal @ change.similarity.rotation.T)[used]
        others |= {name: turned[:, k].astype(others[name].dtype) for k, name in enumerate(_NORMAL)}
    rgb = None if vertices.rgb is None else vertices.rgb[used]
    write_mesh(target, PointCloud(xyz=xyz[used], rgb=rgb, others=others), corner.reshape(-1, 3))


def _write_depth_maps(source: Layout, made: Layout, number: int, change: Change) -> None:
    """Depths in the new unit, and the cameras in the new frame. A crop does not reach them."""
    cameras = read_json(source.depth_cameras)
    try:
        mine = [name for name, camera in cameras.items() if camera["model"] == number]
        for name in mine:
            pose = np.array(cameras[name]["cam_from_world"], np.float64).reshape(3, 4)
            cameras[name]["cam_from_world"] = change.similarity.poses(pose)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{source.depth_cameras} is damaged: {error}") from error
    write_atomic(made.depth_cameras, to_json(cameras))
    require_inside(mine, source.depth_cameras)
    for name in mine:
        path = source.depth_map(name, "depth")
        if change.scale != 1 and path.is_file():
            try:
                depth = np.load(path, allow_pickle=False)
            except (ValueError, OSError, EOFError) as error:
                raise InputError(f"{path} is damaged: {error}") from error
            buffer = io.BytesIO()
            np.save(buffer, (depth.astype(np.float64) * change.scale).astype(depth.dtype), allow_pickle=False)
            write_atomic(made.depth_map(name, "depth"), buffer.getvalue())


def _write_index(source: Path, target: Path, before: StoredModel, kept: Bool[np.ndarray, "point"]) -> None:
    index = read_index(source, index_remedy(before))
    if index is None or len(before.model.points) != len(kept) or index.num_points != len(kept):
        raise InputError(f"{source} is not of the model beside it: {index_remedy(before)}")
    write_index(target, with_points_kept(index, kept))


def _write_errors(source: Path, target: Path, before: StoredModel, change: Change) -> dict[str, Float[np.ndarray, "3"]]:
    """The errors of a model in the new frame; standard deviations of the positions along its axes, by image name."""
    found = read_errors(source, before.view_names, before.model)
    if found is None:
        return {}
    modes = found.moved(change.similarity)
    write_errors(target, modes, before.view_names)
    return dict(zip(before.view_names, modes.position_deviations, strict=True))


# ------------------------------------------------------------------------------------------------------------- figures


def moved_uncertainty(
    entry: Mapping[str, Any], change: Change, axes: Mapping[str, Float[np.ndarray, "3"]]
) -> dict[str, Any]:
    """The deviations of a model, as uncertainty.json and report.json have them, in the new frame; `axes`: those of the
    positions along its axes, by image name, where they are known."""
    return {
        **entry,
        "scene_size": float(f"{change.scale * entry['scene_size']:.6g}"),
        "images": [_moved_deviation(image, change, axes.get(image["name"])) for image in entry["images"]],
    }


def _moved_deviation(image: Mapping[str, Any], change: Change, axes: Float[np.ndarray, "3"] | None) -> dict[str, Any]:
    position = None if image["position"] is None else float(f"{change.scale * image['position']:.4g}")
    metres = position if change.rescales_metres or not change.was_metric else image["position_m"]
    along = None if axes is None else along_axes(axes)
    return {**image, "position": position, "position_m": metres if change.metric else None, "position_axes": along}


def _moved_places(document: Any, number: int, change: Change) -> Any:
    """georeference.json, where places on the Earth stay and the way from the model to them is another."""
    try:
        for entry in document["models"]:
            if entry["number"] == number:
                former = np.array(entry.get("enu_from_model", np.eye(4)), np.float64).reshape(4, 4)
                way = former @ change.similarity.inverse.matrix
                entry.pop("enu_from_model", None)
                if not np.allclose(way, np.eye(4), atol=_SAME):
                    entry["enu_from_model"] = way
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"georeference.json is damaged: {error}") from error
    return document


def _moved_report(
    report: Mapping[str, Any],
    number: int,
    after: StoredModel,
    change: Change,
    axes: Mapping[str, Float[np.ndarray, "3"]],
) -> dict[str, Any]:
    """report.json with the figures of the moved model."""
    rows = rows_in_report(report, after)
    model = _with_images(after.model, np.array(rows, np.int64))
    entry = dict(report["models"][number])
    figures = dict(entry["figures"])
    up = _UP if change.up is not None else None
    images = report["images"]
    if change.crop.is_everything:
        figures["top_view"] = asdict(top_view(model, up))
    else:
        links = figures["links"]
        tree = np.array(links["tree"], np.int64).reshape(-1, 2) if links["tree_of"] == KINEMATIC else None
        figures = asdict(model_figures(model, tree, up))
        images = _seen_after(images, rows, model)
        observations, points = len(model.tracks.obs_point), len(model.points)
        length = np.bincount(model.tracks.obs_point, minlength=points)
        entry |= {
            "points": points,
            "observations": observations,
            "mean_track_length": round(observations / max(points, 1), 3),
            "mean_reprojection_error_px": round(float((model.error_px * length).sum() / max(observations, 1)), 4),
        }
    entry |= {"figures": figures, "up": change.up, "uncertainty": moved_uncertainty(entry["uncertainty"], change, axes)}
    if change.place is not None:
        entry |= {"georeference": change.place.report}
    models = [entry if k == number else other for k, other in enumerate(report["models"])]
    return {**report, "images": images, "models": models, "depth": _moved_depth(report["depth"], number, change)}


def _with_images(model: Reconstruction, rows: np.ndarray) -> Reconstruction:
    """The model with its images numbered as in the report."""
    tracks = replace(model.tracks, obs_image=rows[model.tracks.obs_image])
    return replace(model, image_index=rows[model.image_index], tracks=tracks)


def _seen_after(
    images: Sequence[Mapping[str, Any]], rows: Sequence[int], model: Reconstruction
) -> list[dict[str, Any]]:
    result = [dict(image) for image in images]
    for row, count, error in zip(rows, observations_per_view(model), errors_per_view(model), strict=True):
        known = round(float(error), 4) if np.isfinite(error) else None
        result[row] |= {"observations": int(count), "mean_error_px": known}
    return result


def _moved_depth(depth: Mapping[str, Any] | None, number: int, change: Change) -> dict[str, Any] | None:
    """Depths in the new unit; the pictures of depth maps stay, as do the ends of their colours in the picture."""
    if depth is None or change.scale == 1:
        return None if depth is None else dict(depth)

    def moved(value: float | None) -> float | None:
        return None if value is None else float(f"{change.scale * value:.4g}")

    limits = [
        [change.scale * end for end in ends] if k == number else list(ends) for k, ends in enumerate(depth["limits"])
    ]
    images = [
        image | {key: moved(image[key]) for key in ("near", "median", "far")} if image["model"] == number else image
        for image in depth["images"]
    ]
    return {**depth, "limits": limits, "images": images}
