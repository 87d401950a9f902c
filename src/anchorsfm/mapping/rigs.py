"""First models of photographs that rigs took: one pose a frame (docs/method.md, Rigs).

Mappers place photographs one by one. Then, model after model, the largest first:

* poses of sensors that are not known are the means of those that the frames of the model show, from sensor to sensor
  along the pairs that most frames agree on; where they are given, the model gets their scale;
* models that hold other photographs of the same frames are moved to it, if all these frames say the same;
* the pose of a frame is the mean of those that its photographs say, which weigh by their observations;
* the other photographs of a frame get their pose from it, whatever they show.

Where poses of a finished model stay, they alone say where their frames are, and its cameras stay where they are in the
rig.

The means are robust: photographs that contradict the others of their frames do not count (`geometry.mean_poses`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.geometry.mean_poses import mean_pose
from anchorsfm.geometry.transforms import camera_centres, compose, invert, rotation_angle_deg
from anchorsfm.mapping.base import MapperInput, Start, known_held
from anchorsfm.scene.edit import moved, scaled, with_poses, with_rigs, with_views
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.scene.rigs import Rigs

MIN_FRAMES = 2
"""Frames that a pose of a sensor in its rig is taken from, and that two models are joined by."""
_AGREE_DEG = 10.0
"""Relative rotations of two sensors that differ by less agree ..."""
_JOIN_DEG, _JOIN_SHARE = 5.0, 0.1
"""Models are joined if most common frames agree on their rotation, and on their places as a share of the extent."""


def with_frames(starts: Sequence[Start], given: MapperInput) -> list[Start]:
    """The models with their rigs, fewer and with more photographs; the largest first.

    Photographs that end in a larger model are in no smaller one any more. Poses that are held stay, and so do the rigs
    of such models.
    """
    rigs = given.images.rigs
    if rigs is None:
        return list(starts)
    weight = np.bincount(given.tracks.obs_image, minlength=given.images.num_images).astype(np.float64)
    waiting = sorted(starts, key=lambda start: -len(start.model.image_index))
    done: list[Start] = []
    while waiting:
        start = waiting.pop(0)
        kept = start.model.image_index[start.held.pose]
        model = _with_sensors(start.model, start.model.rigs or rigs, is_held=bool(len(kept)))
        joined = True
        while joined:
            joined = False
            for other in waiting:
                both = None if other.held.pose.any() else _joined(model, other.model, given)
                if both is not None:
                    model, joined = both, True
                    waiting = [rest for rest in waiting if rest is not other]
                    break
        taken = np.concatenate(
            [np.zeros(0, np.int64), *(s.model.image_index for s in waiting), *(s.model.image_index for s in done)]
        )
        model = with_whole_frames(model, given, weight, taken, kept)
        held = replace(known_held(model, given), pose=np.isin(model.image_index, kept))
        done.append(Start(model=model, held=held))
    return done


def with_whole_frames(
    model: Reconstruction,
    given: MapperInput,
    weight: Float[np.ndarray, "image"],
    taken: Int[np.ndarray, "taken"] | None = None,
    kept: Int[np.ndarray, "kept"] | None = None,
) -> Reconstruction:
    """The model with one pose for each frame, which all photographs of the frame get.

    Args:
        model: with rigs.
        given: the photographs.
        weight: what each photograph counts in the mean of its frame.
        taken: photographs that are in other models.
        kept: photographs whose poses stay: they alone say where their frames are.
    """
    rigs = model.rigs
    if rigs is None:
        return model
    every = np.arange(given.images.num_images)
    frame, frame_of_image = rigs.frames(model.image_index), rigs.frames(every)
    stays = np.zeros(len(model.image_index), bool) if kept is None else np.isin(model.image_index, kept)
    poses, more = model.cam_from_world.copy(), {}
    absent = np.setdiff1d(every, np.concatenate([model.image_index, np.zeros(0, np.int64) if taken is None else taken]))
    for number in np.unique(frame[frame >= 0]).tolist():
        views = np.flatnonzero(frame == number)
        sure = views[stays[views]] if stays[views].any() else views
        images = model.image_index[sure]
        rig_from_world = mean_pose(
            compose(invert(rigs.sensor_from_rig[rigs.sensor[images]]), poses[sure]), weight[images]
        )
        moves = views[~stays[views]]
        poses[moves] = compose(rigs.sensor_from_rig[rigs.sensor[model.image_index[moves]]], rig_from_world)
        for image in absent[frame_of_image[absent] == number].tolist():
            more[image] = compose(rigs.sensor_from_rig[rigs.sensor[image]], rig_from_world)
    return with_views(with_poses(model, poses), more, given.cameras, given.images.camera_index)


def carried_rigs(rigs: Rigs | None, stored: Rigs | None, image: Int[np.ndarray, "view"]) -> Rigs | None:
    """The rigs of some photographs with the poses that the cameras have in a finished model.

    Args:
        rigs: of all photographs.
        stored: of the model, by its views.
        image: index of the photograph of each view.

    Raises ValueError if the model has other rigs: cameras or moments that are one there are several here, or the other
    way round.
    """
    if stored is None:
        return rigs
    views = np.flatnonzero(stored.sensor >= 0)
    if rigs is None:
        raise ValueError("no rigs")
    here, frame = rigs.sensor[image[views]], rigs.frame[image[views]]
    if (here < 0).any() or not _are_one_to_one(here, stored.sensor[views]):
        raise ValueError("other cameras")
    if not _are_one_to_one(frame, stored.frame[views]):
        raise ValueError("other moments")
    poses, is_fixed = np.full_like(rigs.sensor_from_rig, np.nan), rigs.is_fixed.copy()
    for own, theirs in dict(zip(here.tolist(), stored.sensor[views].tolist(), strict=True)).items():
        poses[own], is_fixed[own] = stored.sensor_from_rig[theirs], is_fixed[own] or stored.is_fixed[theirs]
    found, given = np.isfinite(poses).all(axis=(1, 2)), rigs.is_known
    for sensor in np.flatnonzero(~found & given).tolist():
        near = np.flatnonzero(found & given & (rigs.rig == rigs.rig[sensor]))
        if len(near):  # by what is given about both
            between = compose(rigs.sensor_from_rig[sensor], invert(rigs.sensor_from_rig[near[0]]))
            poses[sensor] = compose(between, poses[near[0]])
        elif not (found & (rigs.rig == rigs.rig[sensor])).any():
            poses[sensor] = rigs.sensor_from_rig[sensor]
    return replace(rigs, sensor_from_rig=poses, is_fixed=is_fixed)


def _are_one_to_one(first: Int[np.ndarray, "row"], second: Int[np.ndarray, "row"]) -> bool:
    pairs = np.unique(np.stack([first, second], axis=1), axis=0)
    return len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)


# --------------------------------------------------------------------------------------------------- poses of sensors


@dataclass(frozen=True, kw_only=True)
class _Between:
    """Relative pose of two sensors of a rig, as the frames of a model show it."""

    b_from_a: Float[np.ndarray, "3 4"]
    frames: int
    """That agree with it."""


def _with_sensors(model: Reconstruction, rigs: Rigs, *, is_held: bool) -> Reconstruction:
    """The model with rigs whose sensors have poses, at the scale that given ones say unless it is held."""
    between = _between_sensors(model, rigs)
    given = rigs.is_known
    ratios = [
        wanted / found
        for (a, b), pose in between.items()
        if given[a] and given[b]
        for wanted, found in [(_baseline(rigs.sensor_from_rig[[a, b]]), float(np.linalg.norm(pose.b_from_a[:, 3])))]
        if wanted > 0 and found > 0
    ]
    if ratios and not is_held:
        factor = float(np.median(ratios))
        model = scaled(model, factor)
        between = {
            key: replace(pose, b_from_a=pose.b_from_a * np.array([1, 1, 1, factor])) for key, pose in between.items()
        }
    poses = rigs.sensor_from_rig.copy()
    for rig in np.unique(rigs.rig).tolist():
        mine = np.flatnonzero(rigs.rig == rig).tolist()
        found = {s for s in mine if np.isfinite(poses[s]).all()}
        while True:  # along the largest spanning tree
            ways = [
                (pose.frames, a, b)
                for (a, b), pose in between.items()
                if rigs.rig[a] == rig and (a in found) != (b in found)
            ]
            if not ways:
                break
            _, a, b = max(ways, key=lambda way: (way[0], -way[1], -way[2]))
            pose = between[a, b].b_from_a
            if a in found:
                poses[b] = compose(pose, poses[a])
            else:
                poses[a] = compose(invert(pose), poses[b])
            found |= {a, b}
    return with_rigs(model, replace(rigs, sensor_from_rig=poses))


def _baseline(sensor_from_rig: Float[np.ndarray, "2 3 4"]) -> float:
    first, second = camera_centres(sensor_from_rig)
    return float(np.linalg.norm(first - second))


def _between_sensors(model: Reconstruction, rigs: Rigs) -> dict[tuple[int, int], _Between]:
    """Relative poses of sensors (a < b) that enough frames agree on."""
    sensor, frame = rigs.sensor[model.image_index], rigs.frame[model.image_index]
    shown: dict[tuple[int, int], list[np.ndarray]] = {}
    for number in np.unique(frame[sensor >= 0]).tolist():
        views = np.flatnonzero(frame == number)
        views = views[np.argsort(sensor[views])].tolist()
        for k, first in enumerate(views):
            for second in views[k + 1 :]:
                pose = compose(model.cam_from_world[second], invert(model.cam_from_world[first]))
                shown.setdefault((int(sensor[first]), int(sensor[second])), []).append(pose)
    found = {}
    for key, poses in shown.items():
        stack = np.stack(poses)
        mean = mean_pose(stack)
        agree = int((rotation_angle_deg(stack[:, :, :3] @ mean[:, :3].T) < _AGREE_DEG).sum())
        if agree >= MIN_FRAMES and 2 * agree > len(stack):
            found[key] = _Between(b_from_a=mean, frames=agree)
    return found


# ---------------------------------------------------------------------------------------------------- joining models


def _joined(model: Reconstruction, other: Reconstruction, given: MapperInput) -> Reconstruction | None:
    """The model with the views of another one that holds photographs of the same frames; None if they do not agree."""
    rigs = model.rigs
    assert rigs is not None
    own, theirs = (_frame_poses(m, rigs) for m in (model, other))
    common = sorted(own.keys() & theirs.keys())
    if len(common) < MIN_FRAMES:
        return None
    target, source = (np.stack([poses[k] for k in common]) for poses in (own, theirs))
    # x_model = s R x_other + t: rotations of frames say R, their places s and t
    turns = np.swapaxes(target[:, :, :3], 1, 2) @ source[:, :, :3]
    still = np.concatenate([turns, np.zeros((len(common), 3, 1))], axis=2)
    rotation = mean_pose(still)[:, :3]
    centre, other_centre = camera_centres(target), camera_centres(source) @ rotation.T
    agree = rotation_angle_deg(turns @ rotation.T) < _JOIN_DEG
    if agree.sum() < MIN_FRAMES or 2 * agree.sum() <= len(common):
        return None
    scale = _scale(other_centre[agree], centre[agree])
    if scale is None:
        return None
    offset = centre - scale * other_centre
    shift = np.median(offset[agree], axis=0)
    extent = float(np.linalg.norm(centre[agree] - np.median(centre[agree], axis=0), axis=1).max())
    agree &= np.linalg.norm(offset - shift, axis=1) < _JOIN_SHARE * extent
    if agree.sum() < MIN_FRAMES or 2 * agree.sum() <= len(common):
        return None
    placed = moved(other, scale, np.concatenate([rotation, shift[:, None]], axis=1))
    new = np.flatnonzero(~np.isin(placed.image_index, model.image_index))
    poses = {int(placed.image_index[k]): placed.cam_from_world[k] for k in new}
    cameras = list(given.cameras)
    for k in new.tolist():
        cameras[int(given.images.camera_index[placed.image_index[k]])] = placed.cameras[placed.camera_index[k]]
    return with_views(model, poses, cameras, given.images.camera_index)


def _frame_poses(model: Reconstruction, rigs: Rigs) -> dict[int, Float[np.ndarray, "3 4"]]:
    """rig_from_world of every frame that a model holds a photograph of."""
    frame = rigs.frames(model.image_index)
    poses = {}
    for number in np.unique(frame[frame >= 0]).tolist():
        views = np.flatnonzero(frame == number)
        rig_from_sensor = invert(rigs.sensor_from_rig[rigs.sensor[model.image_index[views]]])
        poses[number] = mean_pose(compose(rig_from_sensor, model.cam_from_world[views]))
    return poses


def _scale(source: Float[np.ndarray, "frame 3"], target: Float[np.ndarray, "frame 3"]) -> float | None:
    """Ratio of distances between places; None if they do not differ."""
    i, j = np.triu_indices(len(source), 1)
    ours, theirs = (np.linalg.norm(places[i] - places[j], axis=1) for places in (target, source))
    usable = (theirs > 0) & (ours > 0)
    return float(np.median(ours[usable] / theirs[usable])) if usable.any() else None
