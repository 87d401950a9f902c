"""Where models and their cameras are on the Earth: in words, and georeference.json, cameras.geojson and cameras.kml."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.geodesy import geodetic_from_enu
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.geometry.view_angles import pitch_and_heading_deg
from anchorsfm.io.layout import Layout
from anchorsfm.io.reference_systems import projected
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.mapping.georeference import Georeferenced
from anchorsfm.mapping.placement import UPSIDE_DOWN
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.printable import printable
from anchorsfm.scene.reconstruction import Reconstruction

_DEGREES, _METRES = 9, 4
"""Decimals: a tenth of a millimetre."""
_MAX_NAMED = 5
_BAD_PITCH_DEG = 5.0
"""No gimbal is so far off."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The contents of the three files."""

    document: dict[str, Any]
    geojson: dict[str, Any]
    kml: str

    @staticmethod
    def of(document: dict[str, Any]) -> "Places":
        """From that of georeference.json."""
        everything = [(entry["number"], image) for entry in document["models"] for image in entry["images"]]
        return Places(document=document, geojson=_geojson(everything), kml=_kml(everything))

    def write(self, layout: Layout) -> None:
        """Raises StorageError if a file cannot be written."""
        write_atomic(layout.georeference, to_json(self.document))
        write_atomic(layout.cameras_geojson, to_json(self.geojson))
        write_atomic(layout.cameras_kml, self.kml.encode())


@dataclass(frozen=True)
class Line:
    """Something to say."""

    text: str
    is_warning: bool = False


def placement_lines(found: Georeferenced, names: Sequence[str], asked: str) -> list[Line]:
    """What was done with the recorded positions of a model, and which of them are wrong; `asked`: the setting."""
    count, lines = int(found.agrees.sum()), []
    if found.problem is not None:
        use = "not used" if found.mode == "check" else "used only because that was asked for"
        is_warning = asked in ("align", "prior") or found.problem == UPSIDE_DOWN
        lines.append(Line(f"its recorded positions are {use}: {found.problem}", is_warning=is_warning))
    if count:
        east, north, up = found.rms_m()
        what = {
            "check": "it was compared with",
            "align": "it was brought onto",
            "prior": "it was adjusted with",
            "control": "it was compared with",
        }[found.mode]
        across = float(np.hypot(east, north))
        lines.append(
            Line(f"{what} {count} recorded positions: {across:.2f} m horizontally and {up:.2f} m vertically (RMS)")
        )
    if found.straightened_m is not None:
        far = f"{found.straightened_m:.1f} m"
        lines.append(
            Line(f"it was bent: cameras moved by up to {far} against each other, which the photographs bear out")
        )
    wrong = np.flatnonzero(found.outliers)
    if count and len(wrong):
        named = ", ".join(
            f"{names[view]} ({np.linalg.norm(found.residual_m[view]):.0f} m)" for view in wrong[:_MAX_NAMED].tolist()
        )
        more = "" if len(wrong) <= _MAX_NAMED else f" and {len(wrong) - _MAX_NAMED} more"
        lines.append(Line(f"recorded positions that contradict it have no say: {named}{more}", is_warning=True))
    return lines


def view_lines(model: Reconstruction, found: Georeferenced, view_deg: Float[np.ndarray, "image 2"]) -> Iterator[Line]:
    """How directions that cameras of a model look into differ from recorded ones, if it is in a frame with north."""
    if found.mode == "check":
        return
    rotation = model.cam_from_world[:, :, :3]
    if found.enu_from_model is not None:
        rotation = rotation @ found.enu_from_model.rotation.T
    pitch, heading = pitch_and_heading_deg(rotation, view_deg[model.image_index])
    said = [
        f"{np.median(off[np.isfinite(off)]):.1f} degrees in {what}"
        for what, off in (("pitch", pitch), ("heading", heading))
        if np.isfinite(off).any()
    ]
    if said:
        is_bad = bool(np.median(pitch[np.isfinite(pitch)]) > _BAD_PITCH_DEG) if np.isfinite(pitch).any() else False
        yield Line(
            f"cameras of {int(np.isfinite(heading).sum())} photographs recorded where they looked: "
            f"{' and '.join(said)} from the model (median){', one of them is wrong' if is_bad else ''}",
            is_warning=is_bad,
        )


def describe_places(
    models: Sequence[Reconstruction],
    georeferenced: Sequence[Georeferenced | None],
    geo: GeoPositions,
    names: Sequence[str],
    epsg: int | None,
) -> Places:
    """Places of all models that are in the frame of the recorded positions.

    Raises InputError for an EPSG number that cannot be used.
    """
    entries = [
        place_of_model(number, model, found, geo, names, epsg)
        for number, (model, found) in enumerate(zip(models, georeferenced, strict=True))
        if found is not None and found.mode != "check"
    ]
    return Places.of(frame_of_positions(geo, epsg) | {"models": entries})


def frame_of_positions(geo: GeoPositions, epsg: int | None) -> dict[str, Any]:
    """What georeference.json says of the frame; `models` are missing."""
    latitude, longitude, altitude = geo.origin
    return {
        "frame": "metres, x east, y north, z up, tangent to the WGS 84 ellipsoid at the origin",
        "origin": {
            "latitude_deg": round(latitude, _DEGREES),
            "longitude_deg": round(longitude, _DEGREES),
            "altitude_m": round(altitude, _METRES),
            "altitude_above": "ellipsoid" if geo.is_ellipsoidal else "sea level",
        },
        "epsg": epsg,
    }


def place_of_model(
    number: int, model: Reconstruction, found: Georeferenced, geo: GeoPositions, names: Sequence[str], epsg: int | None
) -> dict[str, Any]:
    """What georeference.json says of a model that has a place in the frame of the recorded positions.

    Raises InputError for an EPSG number that cannot be used.
    """
    entry = {"number": number, "mode": found.mode, "images": _images(model, found, geo, names, epsg)}
    return entry if found.enu_from_model is None else entry | {"enu_from_model": found.enu_from_model.matrix}


def _images(
    model: Reconstruction, found: Georeferenced, geo: GeoPositions, names: Sequence[str], epsg: int | None
) -> list[dict[str, Any]]:
    centres = camera_centres(model.cam_from_world)
    if found.enu_from_model is not None:
        centres = found.enu_from_model.points(centres)
    places = geodetic_from_enu(centres, geo.origin)
    xyz = None if epsg is None else projected(places, epsg, is_ellipsoidal=geo.is_ellipsoidal)
    outlier = found.outliers
    images = []
    for view, image in enumerate(model.image_index.tolist()):
        latitude, longitude, altitude = places[view].tolist()
        residual = found.residual_m[view]
        entry = {
            "name": names[image],
            "enu_m": np.round(centres[view], _METRES).tolist(),
            "latitude_deg": round(latitude, _DEGREES),
            "longitude_deg": round(longitude, _DEGREES),
            "altitude_m": round(altitude, _METRES),
            "residual_m": np.round(residual, _METRES).tolist() if np.isfinite(residual).all() else None,
            "outlier": bool(outlier[view]),
        }
        if xyz is not None:
            entry["epsg_xyz"] = np.round(xyz[view], _DEGREES if abs(xyz[view, :2]).max() <= 360 else _METRES).tolist()
        images.append(entry)
    return images


def _geojson(images: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Points as RFC 7946 has them."""
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {
                    "type": "Point",
                    "coordinates": [image["longitude_deg"], image["latitude_deg"], image["altitude_m"]],
                },
                "properties": {"name": image["name"], "model": number, "record_is_outlier": image["outlier"]},
            }
            for number, image in images
        ],
    }


def _kml(images: Sequence[tuple[int, dict[str, Any]]]) -> str:
    marks = "\n".join(
        f"<Placemark><name>{escape(printable(image['name']))}</name><Point><altitudeMode>absolute</altitudeMode>"
        f"<coordinates>{image['longitude_deg']},{image['latitude_deg']},{image['altitude_m']}</coordinates>"
        "</Point></Placemark>"
        for _, image in images
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>\n'
        f"{marks}\n</Document></kml>\n"
    )
