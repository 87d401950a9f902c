"""Coloured point clouds as binary PLY, which MeshLab, CloudCompare, Open3D and splatting trainers read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from anchorsfm.io.files import read_regular
from anchorsfm.io.store import write_atomic
from anchorsfm.scene.errors import InputError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_BYTE_ORDER = {"binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 65536
_LARGEST_FILE = 64 * 2**30
_FARTHEST = 1e15
"""Coordinates beyond are no places."""


@dataclass(frozen=True, kw_only=True)
class PointCloud:
    """The vertices of a PLY file."""

    xyz: Float[np.ndarray, "point 3"]
    rgb: UInt8[np.ndarray, "point 3"] | None
    """None: the file has no colours."""
    others: dict[str, np.ndarray]
    """Every other property of the vertices by its name, (point,) each: `nx`, `confidence` ..."""


def write_ply(
    path: Path,
    xyz: Float[np.ndarray, "point 3"],
    rgb: UInt8[np.ndarray, "point 3"],
    *,
    normal: Float[np.ndarray, "point 3"] | None = None,
    confidence: Float[np.ndarray, "point"] | None = None,
) -> None:
    """Write vertices x, y, z, nx, ny, nz (float32), red, green, blue (uint8), confidence (float32); little endian.

    Normals and confidence are left out if not given. Raises StorageError if the file cannot be written.
    """
    columns: list[tuple[str, str, np.ndarray]] = [(axis, "float", xyz[:, k]) for k, axis in enumerate("xyz")]
    if normal is not None:
        columns += [(f"n{axis}", "float", normal[:, k]) for k, axis in enumerate("xyz")]
    columns += [(name, "uchar", rgb[:, k]) for k, name in enumerate(("red", "green", "blue"))]
    if confidence is not None:
        columns.append(("confidence", "float", confidence))
    vertex = np.empty(len(xyz), dtype=[(name, "<" + _TYPES[kind]) for name, kind, _ in columns])
    for name, _, values in columns:
        vertex[name] = values
    properties = [f"property {kind} {name}" for name, kind, _ in columns]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}", *properties, "end_header", ""]
    write_atomic(path, "\n".join(header).encode() + vertex.tobytes())


def write_mesh(path: Path, vertices: PointCloud, faces: Int[np.ndarray, "face 3"]) -> None:
    """Write triangles between vertices with all their properties. Raises StorageError if the file cannot be written."""
    columns = {axis: vertices.xyz[:, k].astype("<f4") for k, axis in enumerate("xyz")}
    columns |= {name: values.astype(values.dtype.newbyteorder("<")) for name, values in vertices.others.items()}
    if vertices.rgb is not None:
        columns |= {name: vertices.rgb[:, k] for k, name in enumerate(("red", "green", "blue"))}
    kinds = {code: word for word, code in _TYPES.items()}
    vertex = np.empty(len(vertices.xyz), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        vertex[name] = values
    face = np.empty(len(faces), [("count", "u1"), ("corner", "<i4", 3)])
    face["count"], face["corner"] = 3, faces
    properties = [f"property {kinds[values.dtype.str[1:]]} {name}" for name, values in columns.items()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertex)}", *properties]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header", ""]
    write_atomic(path, "\n".join(header).encode() + vertex.tobytes() + face.tobytes())


def read_mesh(path: Path) -> tuple[PointCloud, Int[np.ndarray, "face 3"]]:
    """Vertices and triangles of a binary PLY file.

    Raises InputError if it cannot be read, or its faces are no triangles between its vertices.
    """
    import trimesh

    vertices = read_ply(path)
    try:
        mesh = trimesh.load(path, file_type="ply", process=False)
        faces = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
    except Exception as error:  # its parser raises anything
        raise InputError(f"{path} has no triangles that can be read: {error}") from error
    if len(faces) and not (faces.min() >= 0 and faces.max() < len(vertices.xyz)):
        raise InputError(f"{path} has triangles between vertices that it does not have")
    return vertices, faces


def read_ply(path: Path) -> PointCloud:
    """Vertices of a binary PLY file with whatever properties they have; other elements are passed over.

    The header is described in Turk, "The PLY polygon file format", 1994.

    Raises InputError if the file is missing, has not the size it announces, or has no vertices with finite x, y, z.
    """
    try:
        content = read_regular(path, _LARGEST_FILE)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    head, mark, _ = content[:_MAX_HEADER].partition(b"end_header")
    if not head.startswith(b"ply") or not mark:
        raise InputError(f"{path} is not a PLY file")
    start = content.find(b"\n", len(head)) + 1 or len(content)
    try:
        vertex = _vertices(head.decode("ascii").splitlines(), memoryview(content)[start:])
        xyz = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)
        _require_finite(vertex)
    except (ValueError, KeyError, IndexError) as error:
        raise InputError(f"{path} cannot be used as a point cloud: {_reason(error)}") from error
    names = vertex.dtype.names or ()
    channels = ("red", "green", "blue")
    coloured = all(name in names and vertex.dtype[name] == np.uint8 for name in channels)
    rgb = np.stack([vertex[name] for name in channels], axis=1) if coloured else None
    used = {"x", "y", "z", *(channels if coloured else ())}
    return PointCloud(xyz=xyz, rgb=rgb, others={name: np.array(vertex[name]) for name in names if name not in used})


def _vertices(header: list[str], body: memoryview) -> np.ndarray:
    """The structured array of element `vertex`; ValueError says what is in the way."""
    order: str | None = None
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    for line in header:
        match line.split():
            case ["format", kind, *_]:
                if kind not in _BYTE_ORDER:
                    raise ValueError(f"its format is {kind}, and only binary ones are read")
                order = _BYTE_ORDER[kind]
            case ["element", name, count]:
                elements.append((name, _count(count), []))
            case ["property", kind, name]:
                elements[-1][2].append((name, _TYPES[kind]))
            case ["property", "list", *_]:
                elements[-1][2].append(("", "list"))
            case [word, *_] if word not in ("ply", "comment", "obj_info"):
                raise ValueError(f"its header has the line {line[:40]!r}")
    if order is None:
        raise ValueError("it does not say its format")
    at = 0
    for row, (element, number, properties) in enumerate(elements):
        if any(kind == "list" for _, kind in properties):
            raise ValueError(f"its element {element} has lists and comes before or as its vertices")
        kinds = np.dtype([(title, order + kind) for title, kind in properties])
        if element == "vertex":
            if at + number * kinds.itemsize > len(body):
                raise ValueError(f"it is cut short: {number} vertices were announced")
            if not kinds.itemsize:
                raise ValueError("its vertices have no properties")
            after = at + number * kinds.itemsize
            if len(elements) == row + 1 and bytes(body[after : after + 64]).strip():
                raise ValueError(f"it holds more than the {number} vertices that were announced")
            return np.frombuffer(body, kinds, number, at)
        at += number * kinds.itemsize
    raise ValueError("it has no vertices")


def _require_finite(vertex: np.ndarray) -> None:
    for name in vertex.dtype.names or ():
        wild = vertex[name].dtype.kind == "f" and int((~(np.abs(vertex[name]) < _FARTHEST)).sum())
        if wild:
            raise ValueError(f"{name} of {wild} of its {len(vertex)} vertices is not finite")


def _count(text: str) -> int:
    """A number of elements."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ValueError(f"{text[:20]!r} is no number of elements")
    return int(text)


def _reason(error: Exception) -> str:
    """What is in the way, for errors of all kinds."""
    return f"it has no or an unknown {error}" if isinstance(error, KeyError) else str(error)
