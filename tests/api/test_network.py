"""A network by itself: tiny and random, but of the published structure."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import anchorsfm
from anchorsfm.io.weights import licence
from anchorsfm.scene.pairs import PairList
from tiny_network import DUST3R, MAST3R, write_weights


@pytest.fixture(scope="module", params=["mast3r", "dust3r"])
def net(request, tmp_path_factory) -> anchorsfm.Mast3r:
    folder = tmp_path_factory.mktemp("weights")
    weights = write_weights(folder / "net", {"mast3r": MAST3R, "dust3r": DUST3R}[request.param])
    return anchorsfm.load_mast3r(weights, device="cpu", accept_weights_license=True, batch_size=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    sizes = [(192, 144), (192, 144), (144, 192), (192, 144)]
    for k, (width, height) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return sorted(folder.iterdir())


def same(first: anchorsfm.PairMatch, second: anchorsfm.PairMatch) -> bool:
    return np.array_equal(first.xy_a, second.xy_a) and np.allclose(first.frame_b.other, second.frame_b.other, atol=1e-5)


def test_files_arrays_tensors_and_batches_say_the_same(net, files):
    one = net.match(files[0], str(files[1]))
    arrays = [np.asarray(Image.open(path)) for path in files]
    assert same(net.match(arrays[0], torch.from_numpy(arrays[1].copy())), one)
    assert same(net.match(arrays[0] / 255, arrays[1]), one)
    many = net.match(files[:3], files[1:])
    assert len(many) == 3 and same(many[0], one) and same(many[1], net.match(files[1], files[2]))
    stack = np.stack([arrays[0], arrays[1]])
    assert same(net.match(stack, stack[::-1])[0], one)


def test_matches_are_in_original_pixels_and_pointmaps_in_both_frames(net, files):
    match = net.match(files[0], files[2])
    assert len(match) == len(match.xy_a) == len(match.xy_b) > 0 and match.confidence.min() > 0
    assert (match.xy_a >= 0).all() and (match.xy_a <= [192, 144]).all() and (match.xy_b <= [144, 192]).all()
    assert match.frame_a.own.shape == (*match.pixels_a().shape[:2], 3)
    assert match.frame_b.own.shape == match.frame_a.other.shape == (*match.pixels_b().shape[:2], 3)
    assert np.allclose(match.pixels_a()[0, 0], [1, 9]) and match.size_b == (144, 192)


def test_it_says_what_the_front_end_says(net, files):
    from anchorsfm.api.images import open_images
    from anchorsfm.io.store import Store

    images = open_images(files[:2])
    predictor = net.open(images, PairList(index=np.array([[0, 1]])), Store(None), anchorsfm.Progress())
    said, match = next(iter(predictor)), net.match(files[0], files[1])
    assert np.array_equal(predictor.grid.to_image(0, said.matches.xy_i), match.xy_a)
    assert np.array_equal(said.frame_j.own, match.frame_b.own)
    found = anchorsfm.predict_pairs(files, [(0, 1)], net)
    assert np.array_equal(next(iter(found)).matches.xy_i, said.matches.xy_i)


def test_terms_must_be_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr(licence, "__doc__", licence.__doc__)
    with pytest.raises(anchorsfm.InputError, match="licen"):
        anchorsfm.load_mast3r("naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric", device="cpu")
