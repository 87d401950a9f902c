"""Similarities in files, and scene graphs that cannot be."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.pairing import check_scene_graph, make_pairs
from anchorsfm.pairing.config import LogWindow, Window, parse_prefilter, parse_scene_graph
from anchorsfm.pairing.similarity import open_similarity, read_similarity
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import InputError


def saved(path: Path, matrix: np.ndarray) -> Path:
    np.save(path, matrix)
    return path


def header(path: Path, shape: str, dtype: str = "<f8") -> Path:
    """A file that says it is large, and holds eight bytes."""
    np.save(path, np.zeros((2, 2)))
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8))
    return path


def test_similarities_of_any_kind_of_number(tmp_path: Path) -> None:
    for kind in (np.float32, np.uint8, np.bool_, np.float64):
        matrix = np.eye(3).astype(kind)
        assert np.array_equal(read_similarity(saved(tmp_path / "s.npy", matrix), 3), np.eye(3))


def test_files_that_hold_no_similarities_are_named(tmp_path: Path) -> None:
    path = tmp_path / "s.npy"

    def refused(words: str, num_images: int = 3) -> None:
        with pytest.raises(InputError, match=words) as raised:
            read_similarity(path, num_images)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)

    refused("no such file")
    np.savez(path.with_suffix(".npz"), np.eye(3))
    path.write_bytes(path.with_suffix(".npz").read_bytes())
    assert zipfile.is_zipfile(path)
    refused("not a complete .npy file")
    for shape in ("(1000000, 1000000)", "(4611686018427387904, 8)", "(-3, -3)", "(3,", "((((", "'x'", "(3, 0)"):
        header(path, shape)
        refused("not a complete .npy file|3x0")
    header(path, "(3, 3)", "|O")
    refused("not a complete .npy file")
    for content in (b"", b"\x93NUMPY", saved(path, np.eye(3)).read_bytes()[:-1], b"hello"):
        path.write_bytes(content)
        refused("not a complete .npy file")
    saved(path, np.zeros((3, 4)))
    refused("3x4 of float64: similarities are a square matrix")
    saved(path, np.zeros((3, 3), complex))
    refused("3x3 of complex128")
    saved(path, np.eye(4))
    refused("of 4 images, but there are 3")
    saved(path, np.where(np.eye(3) > 0, 1, np.nan))
    refused("images 0 and 1 is nan")
    path.unlink()
    path.mkdir()
    refused("no such file")


def test_scene_graphs_with_wild_numbers() -> None:
    for text in ("swin-" + "9" * 5000, "retrieval-1-" + "9" * 10, "oneref-" + "1" * 30, "swin--1", "swin-0", "pairs:"):
        with pytest.raises(InputError, match="unknown scene graph"):
            parse_scene_graph(text)
    with pytest.raises(InputError, match=r"LogWindow\.num_offsets = 99: must be from 1 to 30"):
        parse_scene_graph("logwin-99")
    with pytest.raises(InputError, match=r"FromFile\.path"):
        parse_scene_graph("pairs:a\0b")
    with pytest.raises(InputError, match="unknown prefilter"):
        parse_prefilter("seq" + "9" * 5000)
    for cyclic in (True, False):
        everything = make_pairs(7, Window(size=999_999_999, cyclic=cyclic))
        assert len(everything.index) == 21
        assert len(make_pairs(7, LogWindow(num_offsets=30, cyclic=cyclic)).index) <= 21


def test_what_is_missing_is_said_before_a_photograph_is_read(tmp_path: Path) -> None:
    check_scene_graph("retrieval-3-3")  # a run finds out how similar photographs are
    bad = saved(tmp_path / "bad.npy", np.zeros(3))
    for settings, words in (
        ({"scene_graph": f"pairs:{tmp_path}/none.txt"}, r"none\.txt: there is no such file"),
        ({"similarity": bad}, "square matrix"),
    ):
        with pytest.raises(InputError, match=words):
            reconstruct(tmp_path / "nowhere", tmp_path / "out", PipelineConfig(**settings))
    assert not (tmp_path / "out").exists()
    assert open_similarity(saved(tmp_path / "good.npy", np.eye(2))).shape == (2, 2)
