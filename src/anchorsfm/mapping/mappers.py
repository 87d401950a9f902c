"""The mappers that there are, by the names that a user gives."""

from collections.abc import Mapping
from functools import partial

from anchorsfm.mapping.aligned import map_aligned
from anchorsfm.mapping.base import Mapper
from anchorsfm.mapping.colmap import map_with_colmap
from anchorsfm.mapping.config import MapperName
from anchorsfm.mapping.incremental import map_incrementally
from anchorsfm.mapping.with_poses import map_with_poses

MAPPERS: Mapping[MapperName, Mapper] = {
    "align": map_aligned,
    "tracks": map_incrementally,
    "incremental": partial(map_with_colmap, "incremental"),
    "global": partial(map_with_colmap, "global"),
    "known": map_with_poses,
}
