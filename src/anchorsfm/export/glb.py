"""Points and cameras as one GLB file, which browsers, Blender and office programs show.

glTF's axes are x right, y up, z backward, for the world as for cameras. The world of a level model, z up, is turned by
a quarter turn about x: (x, y, z) becomes (x, z, -y). That of others is turned by half a turn about x, F = diag(1, -1,
-1): as a rule they lie as in one of their photographs, y down. So with the turn W of the world a camera's node has the
matrix W [R | centre] F, with R and centre of world_from_cam in COLMAP's axes. Every view is a node with the name of its
image that shows the frustum of its camera, and a camera of glTF below it, from which programs can look; views of one
camera share both. Cameras of glTF have a vertical field of view and a ratio of sides only: no distortion, and the
principal point in the middle. Edges of frusta are thin prisms, because viewers draw lines one pixel wide or not at
all.

Colours of vertices are linear in glTF, those of photographs are not (sRGB, IEC 61966-2-1). The specification is at
https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html, sections 3.4 and 3.7.2.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.geometry.transforms import camera_centres, invert
from anchorsfm.io.colours import linear_light
from anchorsfm.io.store import write_atomic
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.reconstruction import Camera, Reconstruction

POINTS = "points"
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
_DEPTH_SHARE = 0.03
"""Depth of a frustum as a share of the size of the scene."""
_NEIGHBOUR_SHARE = 0.3
"""... and of the median distance between neighbouring cameras, if that is less."""
_WIDEST = 1.7
"""Frusta of wide lenses end at this tangent."""
_THICKNESS = 0.012
"""Of the edges, as a share of the depth."""
_COLOUR = (0.79, 0.1, 0.02)
"""Of frusta, linear."""


def export_glb(entry: StoredModel, folder: Path) -> None:
    """Write model.glb; raises StorageError."""
    import trimesh

    model = entry.model
    scene = trimesh.Scene()
    if len(model.points):
        middle = np.median(model.points, axis=0)  # single precision counts from here
        place = np.eye(4)
        place[:3, 3] = middle
        cloud = trimesh.PointCloud(model.points - middle, colors=linear_light(model.rgb))
        scene.add_geometry(
            cloud, node_name=POINTS, geom_name=POINTS, transform=_world_turn(level=entry.is_level) @ place
        )
    depth = _frustum_depth(model)
    used = sorted(set(model.camera_index.tolist()))
    shapes = {row: f"camera {row}" for row in used}
    for row in used:
        scene.geometry[shapes[row]] = _frustum(model.cameras[row], depth)
    for matrix, row, name in zip(
        gltf_matrices(model, level=entry.is_level), model.camera_index.tolist(), entry.view_names, strict=True
    ):
        scene.graph.update(frame_from=scene.graph.base_frame, frame_to=name, matrix=matrix, geometry=shapes[row])
    cameras = [_perspective(model.cameras[row], depth) for row in used]
    of_view = {name: used.index(row) for name, row in zip(entry.view_names, model.camera_index.tolist(), strict=True)}

    def add_cameras(tree: dict[str, Any]) -> None:
        tree["cameras"] = cameras
        for node in [node for node in tree["nodes"] if node.get("name") in of_view]:
            node.setdefault("children", []).append(len(tree["nodes"]))
            tree["nodes"].append({"name": f"camera of {node['name']}", "camera": of_view[node["name"]]})

    write_atomic(folder / "model.glb", scene.export(file_type="glb", tree_postprocessor=add_cameras))


def _perspective(camera: Camera, depth: float) -> dict[str, Any]:
    """A camera of glTF (section 3.10) with the focal length in the middle of the picture; it sees from a tenth of its
    frustum on, without end."""
    return {
        "type": "perspective",
        "perspective": {
            "yfov": 2 * float(np.arctan(camera.height / (2 * focal_length_px(camera)))),
            "aspectRatio": camera.width / camera.height,
            "znear": depth / 10,
        },
    }


def _world_turn(*, level: bool) -> Float[np.ndarray, "4 4"]:
    """glTF's world from that of a model."""
    return _Y_UP if level else _FLIP


def gltf_matrices(model: Reconstruction, *, level: bool = False) -> Float[np.ndarray, "view 4 4"]:
    """world_from_cam with glTF's axes for world and cameras; `level`: z is up in the model."""
    world_from_cam = np.tile(np.eye(4), (len(model.image_index), 1, 1))
    world_from_cam[:, :3] = invert(model.cam_from_world)
    return np.asarray(_world_turn(level=level) @ world_from_cam @ _FLIP)


def _frustum_depth(model: Reconstruction) -> float:
    """A length that shows cameras without hiding the scene."""
    from scipy.spatial import cKDTree

    centres = camera_centres(model.cam_from_world)
    everything = np.concatenate([centres, model.points])
    low, high = np.percentile(everything, [5, 95], axis=0)
    depth = _DEPTH_SHARE * float(np.linalg.norm(high - low))
    if len(centres) > 1:
        distance = np.asarray(cKDTree(centres).query(centres, k=2)[0])[:, 1]
        neighbour = _NEIGHBOUR_SHARE * float(np.median(distance))
        depth = min(depth, neighbour) if neighbour > 0 else depth
    return depth or 1.0


def _frustum(camera: Camera, depth: float) -> Any:
    """Mesh of the edges of a camera's field of view and of a triangle above its picture, in glTF's camera axes."""
    import trimesh

    corners_px = np.array([[0, 0], [camera.width, 0], [camera.width, camera.height], [0, camera.height]], float)
    plane = np.nan_to_num(normalised_from_pixels(camera, corners_px), nan=0.0)
    if not plane.any(axis=1).all():  # a corner has no ray: the same shape, as wide as we show
        plane = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [1.0, camera.height / camera.width]
    plane = plane * min(1.0, _WIDEST / np.abs(plane).max())
    corners = depth * np.column_stack([plane[:, 0], -plane[:, 1], -np.ones(4)])
    top = (corners[0] + corners[1]) / 2 + [0, 0.3 * (corners[0, 1] - corners[3, 1]), 0]
    ring = [*corners, corners[0]]
    edges = (
        [(np.zeros(3), corner) for corner in corners] + list(pairwise(ring)) + [(corners[0], top), (top, corners[1])]
    )
    radius = _THICKNESS * depth
    bars = [trimesh.creation.cylinder(radius=radius, segment=np.array(edge), sections=3) for edge in edges]
    mesh = trimesh.util.concatenate(bars)
    mesh.metadata.clear()
    half = tuple(value / 2 for value in _COLOUR)  # visible where a viewer has no lamp
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=(*half, 1.0), emissiveFactor=half, name="frustum")
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    return mesh
