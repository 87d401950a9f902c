"""The frame of the positions that photographs record: a finished model is brought into it."""

from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.geodesy import about_origin, altitude_problem, geo_positions
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.geometry.upright import is_upside_down
from anchorsfm.io.json_files import read_json
from anchorsfm.io.layout import Layout
from anchorsfm.io.pictures import read_header
from anchorsfm.mapping.georeference import Georeferenced, recorded_positions
from anchorsfm.mapping.placement import UPSIDE_DOWN, Placement, place
from anchorsfm.mapping.straightening import problem_of_parts
from anchorsfm.report.numbers import report_georeference
from anchorsfm.report.places import Places, frame_of_positions, place_of_model, placement_lines, view_lines
from anchorsfm.results.model import StoredModel
from anchorsfm.results.run import StoredRun
from anchorsfm.run.settings import SURROUNDINGS, read_config
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.positions import GeoFix, GeoPositions
from anchorsfm.scene.printable import printable
from anchorsfm.transform.earth import PlaceOnEarth, has_ellipsoidal_origin, origin_of, read_places, way_to_earth

_SAME = 1e-6
FROM_RECORD, FROM_PHOTOGRAPHS = "georeference.json", "photographs"
"""What a place in the frame of the positions was found from."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A model brought into the frame of the recorded positions."""

    similarity: Similarity
    """From the frame it had before to x east, y north, z up in metres."""
    finds_up: bool
    """The positions have said what is up, not only where north is."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    geo: GeoPositions | None = None
    """Of the photographs of the model, if they were looked at; else georeference.json has led there."""
    placement: Placement | None = None
    problem: str | None = None
    """Why the frame is doubtful all the same."""

    @property
    def source(self) -> str:
        return FROM_RECORD if self.geo is None else FROM_PHOTOGRAPHS


def place_by_positions(stored: StoredModel, so_far: Similarity, *, is_level: bool) -> Placed:
    """Bring a model into the frame of the recorded positions of its photographs.

    Where georeference.json knows the way, it is taken. Else the positions are read from the photographs; those that
    leave open what is up, or a model that was just made level, are turned about z only.

    Args:
        stored: a model of an output folder.
        so_far: from its frame to the one that was asked for before, which is the former frame of the result.
        is_level: z was found to be up in that frame, which is to stay.

    Raises InputError if the photographs or their positions do not place the model, or it is placed already.
    """
    run = stored.run
    if run is None or not stored.is_result:
        raise InputError(f"{stored.folder} is no model of an output folder: where its photographs are is not known")
    number = f"model {stored.recorded_number}"
    known = way_to_earth(run.layout, stored.recorded_number)
    if known is not None:
        if np.allclose(known.matrix, np.eye(4), atol=_SAME):
            raise InputError(
                f"--gps: {number} of {run.root} is in the frame of its recorded positions already; leave it out"
            )
        if is_level:
            raise InputError(
                f"--gps: {run.layout.georeference} has the way to the frame that {number} "
                "came from, up included: leave out --up"
            )
        note = f"taken back to the frame of the recorded positions that {run.layout.georeference} knows"
        return Placed(
            similarity=known.after(so_far.inverse), finds_up=_found_up(run.layout, stored), notes=(note,), warnings=()
        )
    geo, problems = _read_positions(stored, run)
    model = replace(stored.model, cam_from_world=so_far.poses(stored.model.cam_from_world))
    position, sigma = recorded_positions(model, geo)
    centres, lines = camera_centres(model.cam_from_world), []
    placed = place(centres, position, sigma, z_is_up=is_level)
    if not is_level and isinstance(placed, Placement) and placed.problem and placed.is_believable:
        if not stored.is_level:
            raise InputError(
                f"--gps: the recorded positions do not say what is up: {placed.problem}; give --up too, such as --up "
                "cameras"
            )
        lines.append(f"the recorded positions do not say what is up ({placed.problem}): z stays as it was")
        placed = place(centres, position, sigma, z_is_up=True)
    problem = placed if isinstance(placed, str) else placed.problem
    if isinstance(placed, str) or problem is not None:
        raise InputError(f"--gps: the recorded positions of the model cannot be used: {problem}")
    if not is_level and is_upside_down(placed.similarity.rotation @ stored.up):
        raise InputError(
            f"--gps: the recorded positions of the model cannot be used: {UPSIDE_DOWN}; give a --distance instead"
        )
    what = "north" if placed.z_is_up else "up and north"
    lines.append(f"{what} from recorded positions, within about {placed.rotation_sigma_deg:.1f} degrees")
    if not placed.z_is_up and stored.is_level:
        tilt = float(np.degrees(np.arccos(np.clip(placed.pose[2, 2], -1, 1))))
        lines.append(f"up is {tilt:.1f} degrees off what it was")
    doubt = problem_of_parts(model, placed, position, sigma)
    found = _compared(placed.similarity.points(centres), position, placed, None, doubt)
    said = placement_lines(found, [printable(name) for name in stored.view_names], "align")
    if geo.view_deg is not None:
        moved = replace(model, cam_from_world=placed.similarity.poses(model.cam_from_world))
        said += view_lines(moved, found, geo.view_deg)
    return Placed(
        similarity=placed.similarity,
        finds_up=not placed.z_is_up,
        notes=(*lines, *(f"{number}: {line.text}" for line in said if not line.is_warning)),
        warnings=(*problems, *(f"{number}: {line.text}" for line in said if line.is_warning)),
        geo=geo,
        placement=placed,
        problem=doubt,
    )


def describe_placed(
    stored: StoredModel, placed: Placed, to_earth: Similarity, to_new: Similarity
) -> PlaceOnEarth | None:
    """What the output folder is to say of a model that positions have placed; None: what it says stays true.

    Args:
        stored: the model in its former frame.
        placed: where it was brought.
        to_earth: from that frame to the one of the positions.
        to_new: from that frame to the one that the model has in the end; the same object if they are one.

    Raises InputError if a file beside the model is damaged, or a reference system cannot be used any more.
    """
    if placed.geo is None or placed.placement is None or stored.run is None:
        return None
    layout, number, geo = stored.run.layout, stored.recorded_number, placed.geo
    model = replace(stored.model, cam_from_world=to_new.poses(stored.model.cam_from_world))
    way = None if to_new is to_earth else to_earth.after(to_new.inverse)
    centres = camera_centres(model.cam_from_world)
    position, _ = recorded_positions(model, geo)
    here = centres if way is None else way.points(centres)
    found = _compared(here, position, placed.placement, way, placed.problem)
    document = read_places(layout)
    if document is None:
        is_recorded = layout.config.is_file()
        epsg = read_config(layout.config, without=SURROUNDINGS).epsg if is_recorded else None
        document = frame_of_positions(geo, epsg) | {"models": []}
    entry = place_of_model(number, model, found, geo, stored.names, document["epsg"])
    models = sorted([*document["models"], entry], key=lambda one: one["number"])
    return PlaceOnEarth(
        places=Places.of(document | {"models": models}), report=asdict(report_georeference(model, found, stored.names))
    )


def _compared(
    enu_m: Float[np.ndarray, "view 3"],
    position: Float[np.ndarray, "view 3"],
    placed: Placement,
    way: Similarity | None,
    problem: str | None,
) -> Georeferenced:
    return Georeferenced(
        mode="align",
        residual_m=enu_m - position,
        agrees=placed.agrees,
        sigma_m=placed.sigma_m,
        enu_from_model=way,
        problem=problem,
    )


def _read_positions(stored: StoredModel, run: StoredRun) -> tuple[GeoPositions, list[str]]:
    """Of the photographs of a model, in the frame that a run on all photographs of the folder would have; and what is
    to be said of them."""
    root, report = stored.image_root, run.report
    names = [image["name"] for image in report["images"] if image["size_wh"] is not None]
    fixes: list[GeoFix | None] = []
    read = 0
    for name in names:
        try:
            header = read_header((root or run.root) / name)
        except InputError:
            fixes.append(None)
            continue
        read += 1
        fixes.append(header.gps.fix)
    geo = geo_positions(fixes)
    if geo is None:
        if not read:
            raise InputError(
                f"--gps: none of the {len(names)} photographs of {run.root} can be read in {root}: put them back where "
                "they were"
            )
        raise InputError(f"--gps: none of the {read} photographs that could be read has a recorded position; give a "
                         "--distance instead")  # fmt: skip
    problems = [altitude_problem(fixes)]
    document = read_places(run.layout)
    if document is not None:  # other models have places in this frame
        geo, problem = about_origin(geo, origin_of(document), is_ellipsoidal=has_ellipsoidal_origin(document))
        problems.append(problem)
    row = {name: k for k, name in enumerate(names)}
    return geo.select([row[name] for name in stored.names]), [line for line in problems if line is not None]


def _found_up(layout: Layout, stored: StoredModel) -> bool:
    """Whether up of the frame that georeference.json speaks of was found from the positions; by its record."""
    if not layout.transform.is_file():
        return True
    try:
        steps = [
            found
            for entry in read_json(layout.transform)["models"]
            if entry["number"] == stored.recorded_number
            for step in entry["steps"]
            for found in step["found"]
            if found["what"] == "positions"
        ]
        return all(found["up"] for found in steps)
    except (TypeError, KeyError):
        raise InputError(f"{layout.transform} is damaged: run the same anchorsfm reconstruct again") from None
