"""Matching: index for index the reference's, and the same as comparing everything with everything."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anchorsfm.frontend.mast3r import nearest
from anchorsfm.frontend.mast3r.matching import (
    MatchingPass,
    PixelPairs,
    descriptor_pass,
    extract_correspondences,
    fast_reciprocal,
    first_of_each,
    grid_pixels,
    point_pass,
)
from anchorsfm.frontend.mast3r.nearest import DescriptorMap, DescriptorSearch, PointSearch


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "fast_reciprocal_nn.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(params=[True, False], ids=["8 bits", "float"])
def eight_bits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(nearest, "_eight_bits_are_faster", lambda _device: request.param)
    return request.param


def make_pass(reference: dict[str, np.ndarray], case: str, first: str = "11", second: str = "21") -> MatchingPass:
    names = (f"desc{first}", f"desc{second}", f"qonf{first}", f"qonf{second}")
    return descriptor_pass(*(torch.from_numpy(reference[f"{case}/{name}"]) for name in names))


def walk(one: MatchingPass, stride: int, reverse: bool = False, max_rounds: int = 10) -> PixelPairs:
    searches, images = [one.forward, one.backward], [one.confidence_1, one.confidence_2]
    if reverse:
        searches, images = searches[::-1], images[::-1]
    seeds = grid_pixels(tuple(images[0].shape), stride)
    return fast_reciprocal(*searches, seeds, second_size=images[1].numel(), max_rounds=max_rounds)


def assert_pairs(pairs: PixelPairs, reference: dict[str, np.ndarray], name: str) -> None:
    np.testing.assert_array_equal(pairs.first, reference[f"{name}_idx1"])
    np.testing.assert_array_equal(pairs.second, reference[f"{name}_idx2"])


# ---------------------------------------------------------------------------------------------------------- golden


@pytest.mark.usefixtures("eight_bits")
@pytest.mark.parametrize("case", ["same", "mixed"])
def test_golden_fast_reciprocal(reference: dict[str, np.ndarray], case: str) -> None:
    one = make_pass(reference, case)
    for stride in (8, 4, 1):
        assert_pairs(walk(one, stride), reference, f"{case}/fast_S{stride}")
    assert_pairs(walk(one, 8, reverse=True), reference, f"{case}/fast_rev_S8")
    assert_pairs(walk(one, 8, max_rounds=1), reference, f"{case}/fast_initxy_tol0")


@pytest.mark.usefixtures("eight_bits")
@pytest.mark.parametrize("case", ["same", "mixed"])
def test_golden_all_nearest_neighbours(reference: dict[str, np.ndarray], case: str) -> None:
    first, second = (DescriptorMap(torch.from_numpy(reference[f"{case}/desc{name}"])) for name in ("11", "21"))
    np.testing.assert_array_equal(second.nearest(first.rows), reference[f"{case}/brute_dot_nnA"])
    np.testing.assert_array_equal(first.nearest(second.rows), reference[f"{case}/brute_dot_nnB"])


@pytest.mark.parametrize("case", ["same", "mixed"])
@pytest.mark.parametrize("kind", ["kdtree", "l2"])
def test_golden_by_distance(reference: dict[str, np.ndarray], case: str, kind: str) -> None:
    one = make_pass(reference, case)
    first, second = (reference[f"{case}/desc{name}"].reshape(-1, 24) for name in ("11", "21"))
    distance_pass = MatchingPass(
        forward=PointSearch(first, second),
        backward=PointSearch(second, first),
        confidence_1=one.confidence_1,
        confidence_2=one.confidence_2,
    )
    assert_pairs(walk(distance_pass, 8), reference, f"{case}/fast_{kind}_S8")


@pytest.mark.usefixtures("eight_bits")
def test_golden_correspondences(reference: dict[str, np.ndarray]) -> None:
    passes = [make_pass(reference, "same"), make_pass(reference, "same", "12", "22")]
    found = extract_correspondences(passes, stride=8)
    matches = found.to_matches(64, 64)
    np.testing.assert_array_equal(matches.xy_i - 0.5, reference["same/corres_xy1"])
    np.testing.assert_array_equal(matches.xy_j - 0.5, reference["same/corres_xy2"])
    np.testing.assert_allclose(matches.confidence, reference["same/corres_conf"], rtol=1e-6)


def test_golden_merge(reference: dict[str, np.ndarray]) -> None:
    first, second = (torch.from_numpy(reference[f"merge/idx{k}"]).long() for k in (1, 2))
    shapes = [tuple(reference[f"merge/shape{k}"].tolist()) for k in (1, 2)]
    kept = first_of_each(first, second, shapes[1][0] * shapes[1][1])
    np.testing.assert_array_equal(kept, reference["merge/index"])
    for pixels, shape, name in ((first, shapes[0], "xy1"), (second, shapes[1], "xy2")):
        xy = np.stack((pixels[kept] % shape[1], pixels[kept] // shape[1]), axis=1)
        np.testing.assert_array_equal(xy, reference[f"merge/{name}"])


# ------------------------------------------------------------------------------------------------------ properties


def random_descriptors(height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(height, width, 24, generator=generator), dim=-1)


def smooth_descriptors(height: int, width: int, seed: int, cell: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 24, height // cell + 3, width // cell + 3, generator=generator)
    field = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].permute(1, 2, 0)
    noise = 0.03 * torch.randn(height, width, 24, generator=generator)
    return torch.nn.functional.normalize(field + noise, dim=-1)


def compare_all(queries: Tensor, descriptors: Tensor) -> Tensor:
    return (queries @ descriptors.reshape(-1, descriptors.shape[-1]).T).argmax(1)


@pytest.mark.usefixtures("eight_bits")
@pytest.mark.parametrize("make", [random_descriptors, smooth_descriptors])
@pytest.mark.parametrize("count", [1, 5, 700])
def test_nearest_equals_comparing_everything(make: object, count: int) -> None:
    descriptors = make(120, 88, 0)  # neither side a multiple of a tile
    queries = make(30, 30, 1).reshape(-1, 24)[:count]
    expected = compare_all(torch.cat((queries, queries, queries))[: max(64, count)], descriptors)[:count]
    torch.testing.assert_close(DescriptorMap(descriptors).nearest(queries), expected)


@pytest.mark.usefixtures("eight_bits")
def test_vectors_of_any_length_are_allowed() -> None:
    generator = torch.Generator().manual_seed(0)
    descriptors = random_descriptors(64, 64, 0) * 50 * torch.rand(64, 64, 1, generator=generator)
    queries = random_descriptors(10, 10, 1).reshape(-1, 24) * torch.linspace(0.001, 300, 100)[:, None]
    torch.testing.assert_close(DescriptorMap(descriptors).nearest(queries), compare_all(queries, descriptors))


@pytest.mark.usefixtures("eight_bits")
def test_equal_descriptors_resolve_to_the_first_pixel() -> None:
    """Tiles do not follow each other as pixels do: the second row of a tile comes after the whole first row."""
    descriptors = random_descriptors(48, 48, 0)
    for y, x in ((20, 40), (21, 3), (30, 17)):
        descriptors[y, x] = descriptors[20, 40]
    descriptors[5, 30] = descriptors[9, 2] = descriptors[4, 45]
    queries = torch.stack((descriptors[21, 3], descriptors[9, 2]))
    assert DescriptorMap(descriptors).nearest(queries).tolist() == [20 * 48 + 40, 4 * 48 + 45]
    assert DescriptorMap(torch.ones(40, 40, 24)).nearest(torch.ones(20, 24)).tolist() == [0] * 20


@pytest.mark.usefixtures("eight_bits")
def test_a_black_image_has_zero_descriptors() -> None:
    assert DescriptorMap(torch.zeros(32, 32, 24)).nearest(torch.zeros(3, 24)).tolist() == [0, 0, 0]


def test_no_queries() -> None:
    assert DescriptorMap(random_descriptors(16, 16, 0)).nearest(torch.zeros(0, 24)).shape == (0,)


@pytest.mark.parametrize("make", [random_descriptors, smooth_descriptors])
def test_pairs_are_mutual_and_those_of_the_plain_algorithm(make: object) -> None:
    first, second = make(64, 80, 0), make(48, 96, 1)
    nearest_12, nearest_21 = compare_all(first.reshape(-1, 24), second), compare_all(second.reshape(-1, 24), first)
    one = descriptor_pass(first, second, torch.ones(64, 80), torch.ones(48, 96))
    pairs = walk(one, 8)
    assert len(pairs) > 20
    torch.testing.assert_close(nearest_12[pairs.first], pairs.second)
    torch.testing.assert_close(nearest_21[pairs.second], pairs.first)
    expected = set()
    for seed in grid_pixels((64, 80), 8).tolist():
        here = seed
        for _ in range(10):
            there = int(nearest_12[here])
            if int(nearest_21[there]) == here:
                expected.add((here, there))
                break
            here = int(nearest_21[there])
    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == expected


def test_every_pixel_is_asked_for_once() -> None:
    asked: list[Tensor] = []

    class Counting:
        def __init__(self, search: DescriptorSearch) -> None:
            self.search = search

        def __call__(self, pixels: Tensor) -> Tensor:
            asked.append(pixels)
            return self.search(pixels)

    maps = [DescriptorMap(smooth_descriptors(64, 64, seed)) for seed in (0, 1)]
    one = MatchingPass(
        forward=Counting(DescriptorSearch(*maps)),
        backward=DescriptorSearch(*maps[::-1]),
        confidence_1=torch.ones(64, 64),
        confidence_2=torch.ones(64, 64),
    )
    found = extract_correspondences([one], stride=2)
    pixels = torch.cat(asked)
    assert len(found.pairs) > 100
    assert len(pixels) == len(torch.unique(pixels)) > 1000


def test_swapping_the_images_swaps_the_correspondences() -> None:
    first, second = random_descriptors(48, 64, 0), random_descriptors(64, 32, 1)
    confidences = torch.rand(48, 64) + 1, torch.rand(64, 32) + 1
    found = extract_correspondences([descriptor_pass(first, second, *confidences)])
    swapped = extract_correspondences([descriptor_pass(second, first, *confidences[::-1])])
    there = torch.stack((found.pairs.first, found.pairs.second, found.confidence), dim=1).tolist()
    back = torch.stack((swapped.pairs.second, swapped.pairs.first, swapped.confidence), dim=1).tolist()
    assert len(there) > 30
    assert sorted(there) == sorted(back)


def test_the_first_pass_that_finds_a_pair_gives_its_confidence() -> None:
    first, second = random_descriptors(32, 32, 0), random_descriptors(32, 32, 1)
    sure, unsure = torch.full((32, 32), 4.0), torch.full((32, 32), 9.0)
    found = extract_correspondences(
        [descriptor_pass(first, second, sure, unsure), descriptor_pass(first, second, unsure, unsure)]
    )
    torch.testing.assert_close(found.confidence, torch.full_like(found.confidence, 6.0))


def test_points_match_where_both_images_show_the_same_surface() -> None:
    """Image 2 is image 1 shifted by 5 columns: mutual nearest points are 5 columns apart."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    surface = torch.stack((x, y, 10 + torch.sin(x / 5) + torch.cos(y / 7)), dim=-1)
    one = point_pass(surface[:, :50], surface[:, 5:55], torch.full((40, 50), 2.0), torch.full((40, 50), 8.0))
    found = extract_correspondences([one], stride=4)
    matches = found.to_matches(50, 50)
    assert len(matches) >= 100
    shown_by_both = matches.xy_i[:, 0] >= 6
    shift = (matches.xy_i - matches.xy_j)[shown_by_both]
    np.testing.assert_array_equal(shift, np.broadcast_to([5.0, 0.0], shift.shape))
    np.testing.assert_allclose(matches.confidence, 4.0)
