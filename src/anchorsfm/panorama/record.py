"""What is known of the views of panoramas once they are cut, and the file beside them that says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from anchorsfm.io.json_files import read_own
from anchorsfm.io.layout import VIEWS_RECORD
from anchorsfm.io.names import is_inside
from anchorsfm.io.store import to_json
from anchorsfm.panorama.projection import directions

SCHEMA_VERSION = 2
"""Raised when other views would be cut with the same settings, or when a key changes its meaning."""


@dataclass(frozen=True, kw_only=True)
class PanoramaViews:
    """The views of one panorama."""

    panorama: str
    """Name of the file."""
    digest: str
    """SHA-256 of its bytes."""
    views: str
    """Which: level or sphere."""
    side: int
    """Of the views, in pixels."""
    names: tuple[str, ...]
    """Of the views, in the order of `projection.directions`, relative to the folder of all views."""

    @staticmethod
    def of(entry: Mapping[str, Any]) -> "PanoramaViews":
        """From JSON that has been checked."""
        plain: dict[str, Any] = {field.name: entry[field.name] for field in fields(PanoramaViews)}
        return PanoramaViews(**plain | {"names": tuple(plain["names"])})


@dataclass(frozen=True, kw_only=True)
class _Record:
    schema_version: int
    panoramas: tuple[PanoramaViews, ...]


def record_text(panoramas: Sequence[PanoramaViews]) -> str:
    """The content of the record."""
    return to_json(_Record(schema_version=SCHEMA_VERSION, panoramas=tuple(panoramas)))


def read_record(folder: Path) -> tuple[PanoramaViews, ...]:
    """The panoramas that the record of a folder names; none if there is no record, or no usable one."""
    content = read_own(folder / VIEWS_RECORD, _Record, SCHEMA_VERSION)
    if content is None:
        return ()
    found = [PanoramaViews.of(entry) for entry in content["panoramas"]]
    return tuple(
        one
        for one in found
        if all(map(is_inside, one.names))
        and one.views in ("level", "sphere")
        and len(one.names) == len(directions(one.views))
    )
