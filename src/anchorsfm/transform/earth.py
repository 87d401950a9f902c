"""What an output folder says of where its models are on the Earth: georeference.json, read and written anew."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from anchorsfm.geometry.similarity import Similarity, require_similarity
from anchorsfm.io.json_files import checked, read_json
from anchorsfm.io.layout import Layout
from anchorsfm.report.places import Places
from anchorsfm.scene.errors import InputError

_LARGEST_DEG, _LARGEST_M = 360.0, 1e6


@dataclass(frozen=True, kw_only=True)
class PlaceOnEarth:
    """What is written anew of a model's place on the Earth."""

    places: Places | None
    """Of all models; None: no model has one."""
    report: dict[str, Any] | None
    """What the report says of the model."""

    def write(self, layout: Layout) -> None:
        """Raises StorageError if a file cannot be written."""
        if self.places is not None:
            self.places.write(layout)


def without_place(layout: Layout, number: int, report: dict[str, Any] | None) -> PlaceOnEarth:
    """What an output folder says once a model is not placed any more; `report`: what its report said before.

    Raises InputError if georeference.json is damaged.
    """
    document = read_places(layout)
    models = [] if document is None else [entry for entry in document["models"] if entry["number"] != number]
    places = None if document is None or not models else Places.of(document | {"models": models})
    return PlaceOnEarth(places=places, report=report)


def way_to_earth(layout: Layout, number: int) -> Similarity | None:
    """From a model to the frame of the recorded positions, if it has a place in it.

    Raises InputError if georeference.json is damaged.
    """
    document = read_places(layout)
    entry = next((one for one in (document or {"models": []})["models"] if one["number"] == number), None)
    if entry is None:
        return None
    return Similarity.of_matrix(np.array(entry.get("enu_from_model", np.eye(4)), np.float64))


def origin_of(document: dict[str, Any]) -> tuple[float, float, float]:
    """Latitude, longitude (degrees) and altitude (metres) of the frame that a georeference.json speaks of."""
    origin = document["origin"]
    return float(origin["latitude_deg"]), float(origin["longitude_deg"]), float(origin["altitude_m"])


def has_ellipsoidal_origin(document: dict[str, Any]) -> bool:
    """Whether that altitude is above the ellipsoid; above sea level otherwise."""
    return bool(document["origin"]["altitude_above"] == "ellipsoid")


def read_places(layout: Layout) -> dict[str, Any] | None:
    """georeference.json; None if there is none.

    Raises InputError if it is damaged.
    """
    if not layout.georeference.is_file():
        return None
    document: dict[str, Any] = read_json(layout.georeference)
    try:
        checked(document, _Document)
        latitude, longitude, altitude = map(abs, origin_of(document))
        if max(latitude, longitude) > _LARGEST_DEG or altitude > _LARGEST_M:
            raise ValueError("its origin is no place")
        for entry in document["models"]:
            if "enu_from_model" in entry:
                require_similarity(np.array(entry["enu_from_model"], np.float64))
    except ValueError as error:
        raise InputError(
            f"{layout.georeference} is damaged ({error}): run the same anchorsfm reconstruct again, which makes it anew"
        ) from None
    return document


@dataclass(frozen=True, kw_only=True)
class _Image:
    name: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    outlier: bool


@dataclass(frozen=True, kw_only=True)
class _Entry:
    number: int
    images: tuple[_Image, ...]
    enu_from_model: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Origin:
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    altitude_above: str


@dataclass(frozen=True, kw_only=True)
class _Document:
    """What is used of georeference.json."""

    origin: _Origin
    epsg: int | None
    models: tuple[_Entry, ...]
