"""Points of many views merged into one per cell of space.

A cell of level l is a cube of side 2^l units of the model. A point belongs to a cell of about the size of its pixel, so
that near surfaces keep more points than far ones. Points of a cell become one: their mean place, normal and colour,
weighted by confidence. Where a view from nearby has filled a cell with finer ones, the coarse point is dropped.

Sums are kept per cell and merged as views come, so memory grows with the cloud and not with the number of views.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64, UInt8

_BITS = 21
_HALF = 1 << (_BITS - 1)
_MIN_WAITING = 1 << 19
"""Points wait before they are merged into the sums: at least so many, or half as many as there are sums."""
_XYZ, _NORMAL, _RGB, _WEIGHT, _COUNT = slice(0, 3), slice(3, 6), slice(6, 9), 9, 10


@dataclass(frozen=True, kw_only=True)
class FusedCloud:
    """Coloured points with normals of one model, in its world frame."""

    xyz: Float[np.ndarray, "point 3"]
    normal: Float[np.ndarray, "point 3"]
    """Unit length, towards the cameras."""
    rgb: UInt8[np.ndarray, "point 3"]
    confidence: Float[np.ndarray, "point"]
    """Mean over the merged pixels of the number of views that agree, each weighted by its correlation."""
    cell: Float[np.ndarray, "point"]
    """Side of the cell a point stands for."""

    def rows(self, rows: np.ndarray) -> "FusedCloud":
        """Some of the points."""
        return FusedCloud(
            xyz=self.xyz[rows],
            normal=self.normal[rows],
            rgb=self.rgb[rows],
            confidence=self.confidence[rows],
            cell=self.cell[rows],
        )


@dataclass(frozen=True, kw_only=True)
class _Sums:
    key: Int64[np.ndarray, "cell"]
    value: Float[np.ndarray, "cell 11"]
    """Weighted sums of the place relative to the cell's centre in cells, normal, colour; weight; number of pixels."""

    @staticmethod
    def joined(parts: "list[_Sums]") -> "_Sums":
        key = np.concatenate([part.key for part in parts])
        order = np.argsort(key, kind="stable")
        key, value = key[order], np.concatenate([part.value for part in parts])[order]
        first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.zeros(0, np.int64)
        return _Sums(key=key[first], value=np.add.reduceat(value, first, axis=0) if len(first) else value)


class CellMerger:
    """Takes in points, gives the merged cloud. `origin` is where cells are counted from."""

    def __init__(self, origin: Float[np.ndarray, "3"], max_points: int) -> None:
        self._origin = origin
        self._max_points = max_points
        self._coarser = 0
        self._sums: dict[int, list[_Sums]] = {}
        self._waiting, self._merged = 0, 0

    def add(
        self,
        xyz: Float[np.ndarray, "point 3"],
        normal: Float[np.ndarray, "point 3"],
        rgb: UInt8[np.ndarray, "point 3"],
        confidence: Float[np.ndarray, "point"],
        size: Float[np.ndarray, "point"],
    ) -> None:
        """Add points, each about `size` wide."""
        level = np.rint(np.log2(size)).astype(np.int64) + self._coarser
        for one in np.unique(level).tolist():
            rows = level == one
            place = (xyz[rows] - self._origin) / 2.0**one
            cell = np.floor(place)
            weight = confidence[rows, None].astype(np.float32)
            value = np.empty((len(cell), 11), np.float32)
            value[:, _XYZ] = weight * (place - cell - 0.5)
            value[:, _NORMAL], value[:, _RGB] = weight * normal[rows], weight * rgb[rows]
            value[:, _WEIGHT], value[:, _COUNT] = weight[:, 0], 1
            self._sums.setdefault(one, []).append(_Sums.joined([_Sums(key=_key(cell), value=value)]))
            self._waiting += len(value)
        if self._waiting > max(_MIN_WAITING, self._merged // 2):
            self._merge()

    def finish(self) -> FusedCloud:
        """The cloud, level by level and cell by cell."""
        self._merge()
        while self._num_cells() > self._max_points:
            self._coarsen()
        parts = [_points_of(level, parts[0], self._origin) for level, parts in sorted(self._sums.items())]
        if not parts:
            return _joined([_points_of(0, _Sums(key=np.zeros(0, np.int64), value=np.zeros((0, 11))), self._origin)])
        return _without_coarse_copies(parts, self._origin)

    def _merge(self) -> None:
        self._sums = {level: [_Sums.joined(parts)] for level, parts in sorted(self._sums.items())}
        self._waiting = 0
        while self._num_cells() > 2 * self._max_points:
            self._coarsen()
        self._merged = self._num_cells()

    def _num_cells(self) -> int:
        return sum(len(part.key) for parts in self._sums.values() for part in parts)

    def _coarsen(self) -> None:
        """Double all cells."""
        doubled: dict[int, list[_Sums]] = {}
        for level, parts in sorted(self._sums.items()):
            for part in parts:
                cell = _cell(part.key)
                parent = np.floor(cell / 2)
                value = part.value.copy()
                shift = (cell + 0.5) / 2 - (parent + 0.5)
                value[:, _XYZ] = value[:, _XYZ] / 2 + shift * value[:, _WEIGHT, None]
                doubled.setdefault(level + 1, []).append(_Sums.joined([_Sums(key=_key(parent), value=value)]))
        self._sums = doubled
        self._coarser += 1


def _points_of(level: int, sums: _Sums, origin: Float[np.ndarray, "3"]) -> FusedCloud:
    weight = np.maximum(sums.value[:, _WEIGHT, None], 1e-12)
    normal = sums.value[:, _NORMAL]
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    place = _cell(sums.key) + 0.5 + sums.value[:, _XYZ] / weight
    return FusedCloud(
        xyz=place * 2.0**level + origin,
        normal=(normal / np.maximum(length, 1e-12)).astype(np.float32),
        rgb=np.rint(np.clip(sums.value[:, _RGB] / weight, 0, 255)).astype(np.uint8),
        confidence=(sums.value[:, _WEIGHT] / np.maximum(sums.value[:, _COUNT], 1)).astype(np.float32),
        cell=np.full(len(sums.key), 2.0**level, np.float32),
    )


def _without_coarse_copies(levels: list[FusedCloud], origin: Float[np.ndarray, "3"]) -> FusedCloud:
    """All levels, from fine to coarse; points whose cell holds at least two finer points are left out."""
    kept = levels[:1]
    for cloud in levels[1:]:
        side = float(cloud.cell[0]) if len(cloud.cell) else 1.0
        finer = np.concatenate([_key(np.floor((part.xyz - origin) / side)) for part in kept])
        cells, count = np.unique(finer, return_counts=True)
        covered = np.isin(_key(np.floor((cloud.xyz - origin) / side)), cells[count >= 2])
        kept.append(cloud.rows(~covered))
    return _joined(kept)


def _joined(parts: list[FusedCloud]) -> FusedCloud:
    return FusedCloud(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in FusedCloud.__dataclass_fields__}
    )


def _key(cell: Float[np.ndarray, "n 3"]) -> Int64[np.ndarray, "n"]:
    """One number per cell; cells further than 2^20 from the origin fall together with the last."""
    x, y, z = (np.clip(cell, -_HALF, _HALF - 1).astype(np.int64) + _HALF).T
    return (x << (2 * _BITS)) | (y << _BITS) | z


def _cell(key: Int64[np.ndarray, "n"]) -> Int[np.ndarray, "n 3"]:
    mask = (1 << _BITS) - 1
    return np.stack([key >> (2 * _BITS), (key >> _BITS) & mask, key & mask], axis=1) - _HALF
