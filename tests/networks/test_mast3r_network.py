"""The network against reference outputs, and properties that need no reference."""

import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from anchorsfm.networks.mast3r import (
    Architecture,
    DptWidths,
    EncodedImages,
    PairNetwork,
    ViewPrediction,
    architecture_from_arguments,
    architecture_from_shapes,
    build_network,
    empty_network,
    parameter_shapes,
)
from anchorsfm.networks.mast3r.loading import aliases
from anchorsfm.networks.mast3r.rotary import make_rotation, patch_positions
from anchorsfm.scene.errors import InputError
from tiny_network import stored_shapes

TINY = Architecture(
    image_size=64,
    encoder_width=24,
    encoder_depth=2,
    encoder_heads=2,
    decoder_width=16,
    decoder_depth=4,
    decoder_heads=2,
    dpt=DptWidths(levels=(4, 6, 8, 10), fused=8, last=4),
)
HEADS = {
    "catmlp+dpt": TINY,
    "dpt": Architecture(**{**vars(TINY), "head": "dpt", "descriptor_width": 0}),
    "linear": Architecture(**{**vars(TINY), "head": "linear", "descriptor_width": 0}),
}
INTERMEDIATE = 1e-4
"""Largest error of encoder, decoder and raw head outputs over their largest value."""
FINAL = {"pts3d": 1e-4, "conf": 1e-4, "desc": 5e-6, "desc_conf": 3e-5}
"""Largest absolute error of the final outputs: three to four times the reference's own float32 rounding."""


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def formula_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Pseudo-random weights that depend on the parameter's name and shape only."""
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(int(np.prod(shape))).reshape(shape)
    gain = 0.2 if ".dpt.head.4." in name else 1.0
    if z.ndim >= 2:
        z *= gain / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("bias"):
        z *= 0.05 * gain
    else:
        z = 1 + 0.1 * z
    return z.astype(np.float32)


def formula_network(architecture: Architecture) -> PairNetwork:
    shapes = stored_shapes(architecture)
    with ThreadPoolExecutor(2) as pool:
        values = pool.map(lambda item: torch.from_numpy(formula_weight(*item)), shapes.items())
        return build_network(architecture, dict(zip(shapes, values, strict=True)), "formula weights")


def random_images(*size_wh: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size_wh[1], size_wh[0], generator=generator) * 2 - 1


def view_arrays(view: ViewPrediction) -> dict[str, torch.Tensor]:
    return {field.name: value for field in fields(view) if (value := getattr(view, field.name)) is not None}


def assert_views_close(one: ViewPrediction, two: ViewPrediction, tolerance: float = 2e-5) -> None:
    arrays = view_arrays(two)
    assert view_arrays(one).keys() == arrays.keys()
    for name, value in view_arrays(one).items():
        torch.testing.assert_close(
            value, arrays[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def assert_final(view: ViewPrediction, expected: dict[str, np.ndarray], suffix: str) -> None:
    values = {
        "pts3d": view.points,
        "conf": view.confidence,
        "desc": view.descriptors,
        "desc_conf": view.descriptor_confidence,
    }
    for name, value in values.items():
        want = expected[f"{name}{suffix}"]
        error = np.abs(value.numpy() - want).max()
        assert value.shape == want.shape
        assert error <= FINAL[name], f"{name}{suffix}: off by {error}"


def assert_intermediate(value: torch.Tensor, want: np.ndarray, what: str) -> None:
    assert value.shape == want.shape, what
    error = np.abs(value.numpy() - want).max() / np.abs(want).max()
    assert error <= INTERMEDIATE, f"{what}: relative error {error}"


def check_case(network: PairNetwork, case: dict[str, np.ndarray]) -> None:
    """Every array of a golden case."""
    seen: dict[str, torch.Tensor] = {}
    modules = {
        **{f"dec1_{k:02}": network.dec_blocks[k - 1] for k in (1, 6, 9)},
        **{f"dec2_{k:02}": network.dec_blocks2[k - 1] for k in (1, 6, 9)},
        "head1_dpt_raw": network.downstream_head1.dpt,
    }
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
        for name, module in modules.items()
    ]
    encoded = [network.encode(torch.from_numpy(case[name])) for name in ("img1", "img2")]
    decoded = network.decode(*encoded)
    seen |= {"dec1_12": decoded[0].layers[-1], "dec2_12": decoded[1].layers[-1]}
    for k, view in enumerate(encoded, start=1):
        seen[f"enc{k}"] = view.tokens
        positions = patch_positions(view.grid_hw).expand(len(view.tokens), -1, -1)
        np.testing.assert_array_equal(positions, case[f"pos{k}"])
        if f"true_shape{k}" in case:
            np.testing.assert_array_equal(np.array(view.grid_hw) * 16, case[f"true_shape{k}"][0])
    output = network.predict(*encoded)
    for hook in hooks:
        hook.remove()
    checked = {"img1", "img2", "pos1", "pos2", "true_shape1", "true_shape2"}
    for name, value in seen.items():
        assert_intermediate(value, case[name], name)
        checked.add(name)
    for suffix, view in (("1", output.first), ("2", output.second)):
        assert_final(view, case, suffix)
        checked |= {f"{name}{suffix}" for name in FINAL}
    assert set(case) <= checked, set(case) - checked


def load_cases(path: Path) -> dict[str, dict[str, np.ndarray]]:
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as file:
        for key in file.files:
            case, name = key.split("/")
            cases.setdefault(case, {})[name] = file[key]
    return cases


# ---------------------------------------------------------------------------------------------------------- golden


@pytest.fixture(scope="module")
def tiny_config(golden: Path) -> dict:
    return json.loads((golden / "mast3r_tiny_config.json").read_text())


@pytest.fixture(scope="module")
def tiny(golden: Path, tiny_config: dict) -> PairNetwork:
    arguments = {**tiny_config["constructor_args"], "dpt_overrides": tiny_config["dpt_overrides"]}
    parameters = load_file(golden / "mast3r_tiny_weights.safetensors")
    return build_network(architecture_from_arguments(arguments, "tiny"), parameters, "tiny")


@pytest.mark.parametrize("name", ["landscape", "portrait", "mixed"])
def test_golden_tiny_network(tiny: PairNetwork, golden: Path, name: str) -> None:
    check_case(tiny, load_cases(golden / "mast3r_tiny_io.npz")[name])


@pytest.mark.parametrize("name", ["same", "mixed"])
def test_golden_symmetric_forward(tiny: PairNetwork, golden: Path, name: str) -> None:
    case = load_cases(golden / "symmetric_forward.npz")[name]
    encoded = [tiny.encode(torch.from_numpy(case[image])) for image in ("img1", "img2")]
    output = tiny.predict_symmetric(*encoded)
    assert_final(output.frame_i.first, case, "11")
    assert_final(output.frame_i.second, case, "21")
    assert_final(output.frame_j.first, case, "22")
    assert_final(output.frame_j.second, case, "12")


def test_golden_manifest(golden: Path) -> None:
    manifest = json.loads((golden / "mast3r_official_manifest.json").read_text())
    architecture = architecture_from_arguments(manifest["constructor_args"], "manifest")
    assert architecture == Architecture()
    shapes = parameter_shapes(architecture)
    assert shapes == {name: tuple(entry["shape"]) for name, entry in manifest["parameters"].items()}
    assert aliases(architecture) == manifest["aliases"]
    network = empty_network(architecture)
    assert sum(value.numel() for value in network.parameters()) == manifest["n_unique_parameters"]
    assert architecture_from_shapes(shapes, "manifest") == architecture


def test_golden_full_size_network(golden: Path) -> None:
    available = psutil.virtual_memory().available
    if available < 6e9:
        pytest.skip(f"needs 6 GB of memory, {available / 1e9:.1f} GB are available")
    check_case(formula_network(Architecture()), load_cases(golden / "mast3r_official_formula_io.npz")["small"])


# ------------------------------------------------------------------------------------------------------ properties


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_equals_one_by_one(head: str) -> None:
    network = formula_network(HEADS[head])
    images = [random_images(48, 32, count=3, seed=seed) for seed in (1, 2)]
    batch = network.predict_symmetric(*(network.encode(image) for image in images))
    for k in range(3):
        single = network.predict_symmetric(*(network.encode(image[k : k + 1]) for image in images))
        for frame in ("frame_i", "frame_j"):
            for view in ("first", "second"):
                one = getattr(getattr(single, frame), view)
                rows = ViewPrediction(
                    **{
                        field.name: None if value is None else value[k : k + 1]
                        for field in fields(ViewPrediction)
                        for value in [getattr(getattr(getattr(batch, frame), view), field.name)]
                    }
                )
                assert_views_close(rows, one)


@pytest.mark.parametrize("sizes_wh", [((48, 32), (48, 32)), ((48, 32), (32, 64))])
def test_swapping_the_images_swaps_the_outputs(sizes_wh: tuple[tuple[int, int], tuple[int, int]]) -> None:
    network = formula_network(TINY)
    i, j = (network.encode(random_images(*size, seed=k)) for k, size in enumerate(sizes_wh))
    forward, backward = network.predict_symmetric(i, j), network.predict_symmetric(j, i)
    for view in ("first", "second"):
        assert_views_close(getattr(forward.frame_i, view), getattr(backward.frame_j, view))
        assert_views_close(getattr(forward.frame_j, view), getattr(backward.frame_i, view))
    # The two orders say different things about an image: a network that confused them would be found out.
    assert not torch.allclose(forward.frame_i.first.points, forward.frame_j.second.points, atol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_outputs_are_what_they_claim(head: str) -> None:
    network = formula_network(HEADS[head])
    output = network.predict(network.encode(random_images(32, 48)), network.encode(random_images(64, 16, seed=1)))
    assert output.first.points.shape == (1, 48, 32, 3)
    assert output.second.points.shape == (1, 16, 64, 3)
    assert (output.first.confidence > 1).all()
    if head == "catmlp+dpt":
        lengths = output.second.descriptors.norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))
        assert (output.first.descriptor_confidence > 0).all()
    else:
        assert output.first.descriptors is None and output.first.descriptor_confidence is None


def test_linear_head_puts_pixels_where_they_belong() -> None:
    """Against the definition written out: the token's channels are (channel, row, column) of its patch."""
    network = formula_network(HEADS["linear"])
    encoded = [network.encode(random_images(48, 32, seed=seed)) for seed in (1, 2)]
    view, _ = network.decode(*encoded)
    points = network.downstream_head1(view).points
    raw = network.downstream_head1.proj(view.layers[-1])[0].reshape(2, 3, 4, 16, 16)
    row, column = 21, 37
    vector = raw[row // 16, column // 16, :3, row % 16, column % 16]
    expected = vector / vector.norm() * vector.norm().expm1()
    torch.testing.assert_close(points[0, row, column], expected)


def test_rotary_products_depend_on_relative_position_only() -> None:
    rotation = make_rotation((6, 7), 16, 100.0, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 16, generator=generator).expand(1, 1, 42, 16) for _ in range(2))
    scores = (rotation.apply(query)[0, 0] @ rotation.apply(key)[0, 0].T).reshape(6, 7, 6, 7)
    torch.testing.assert_close(scores[1, 2, 3, 1], scores[3, 4, 5, 3])
    assert abs(scores[1, 2, 3, 1] - scores[1, 2, 3, 2]) > 1e-3
    assert abs(scores[1, 2, 3, 1] - scores[1, 2, 2, 1]) > 1e-3
    torch.testing.assert_close(rotation.apply(query).norm(dim=-1), query.norm(dim=-1))


def test_half_precision_trunk_stays_close_and_heads_stay_float32() -> None:
    network = formula_network(TINY)
    images = [random_images(48, 32, seed=seed) for seed in (1, 2)]
    exact = network.predict(*(network.encode(image) for image in images))
    network.set_trunk_dtype(torch.bfloat16)
    assert network.enc_blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert network.dec_blocks2[0].norm_y.weight.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in network.downstream_head1.parameters())
    rounded = network.predict(*(network.encode(image) for image in images))
    assert rounded.first.points.dtype == torch.float32
    error = (rounded.first.points - exact.first.points).norm() / exact.first.points.norm()
    assert 1e-5 < error < 0.05


def test_tokens_may_be_kept_in_half_precision() -> None:
    network = formula_network(TINY)
    i, j = (network.encode(random_images(48, 32, seed=seed)) for seed in (1, 2))
    exact = network.predict(i, j)
    halves = [EncodedImages(tokens=view.tokens.half(), grid_hw=view.grid_hw) for view in (i, j)]
    kept = network.predict(*halves)
    assert_views_close(kept.first, exact.first, tolerance=2e-2)


# --------------------------------------------------------------------------------------------------------- loading


def parameters_of(architecture: Architecture) -> dict[str, torch.Tensor]:
    return dict(formula_network(architecture).state_dict())


def test_a_checkpoint_without_second_decoder_and_aliases_loads() -> None:
    complete = parameters_of(TINY)
    second_names = aliases(TINY)
    reduced = {
        name: value
        for name, value in complete.items()
        if not name.startswith("dec_blocks2.") and name not in second_names and name != "mask_token"
    }
    network = build_network(TINY, reduced, "reduced")
    state = network.state_dict()
    assert state.keys() == complete.keys()
    for name, value in complete.items():
        source = name.replace("dec_blocks2.", "dec_blocks.")
        expected = complete[source] if source != "mask_token" else torch.zeros_like(value)
        assert torch.equal(state[name], expected), name


def test_second_names_alone_are_enough() -> None:
    complete = parameters_of(TINY)
    firsts = set(aliases(TINY).values())
    renamed = {name: value for name, value in complete.items() if name not in firsts}
    state = build_network(TINY, renamed, "renamed").state_dict()
    assert all(torch.equal(state[name], value) for name, value in complete.items())


def test_wrong_parameters_are_listed() -> None:
    parameters = parameters_of(TINY)
    del parameters["enc_norm.bias"]
    parameters["surprise.weight"] = torch.zeros(2)
    parameters["decoder_embed.bias"] = torch.zeros(3)
    with pytest.raises(InputError) as caught:
        build_network(TINY, parameters, "some.safetensors")
    message = str(caught.value)
    assert "some.safetensors" in message
    assert "1 missing: enc_norm.bias" in message
    assert "1 unknown: surprise.weight" in message
    assert "1 of another shape: decoder_embed.bias (3,) instead of (16,)" in message


def test_a_second_decoder_with_gaps_is_an_error() -> None:
    parameters = parameters_of(TINY)
    del parameters["dec_blocks2.3.norm_y.weight"]
    with pytest.raises(InputError, match=r"1 missing: dec_blocks2\.3\.norm_y\.weight"):
        build_network(TINY, parameters, "gap")


@pytest.mark.parametrize("head", HEADS)
def test_architecture_from_shapes(head: str) -> None:
    wide = {**vars(HEADS[head]), "encoder_width": 128, "decoder_width": 64, "decoder_heads": 1, "image_size": 512}
    if head == "linear":
        wide["dpt"] = DptWidths()
    architecture = Architecture(**wide)
    assert architecture_from_shapes(parameter_shapes(architecture), "shapes") == architecture


def test_shapes_that_do_not_tell_the_heads() -> None:
    with pytest.raises(InputError, match=r"weights\.pth.*heads.*config\.json"):
        architecture_from_shapes(parameter_shapes(TINY), "weights.pth")


def test_shapes_of_something_else() -> None:
    with pytest.raises(InputError, match="not the parameters of a MASt3R"):
        architecture_from_shapes({"conv1.weight": (64, 3, 7, 7)}, "resnet.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"depth_mode": ["linear", "-inf", "inf"]},
        {"conf_mode": ["sigmoid", 0, 1]},
        {"head_type": "gs"},
        {"pos_embed": "cosine"},
        {"output_mode": "pts3d+gauss"},
        {"two_confs": False},
        {"dec_num_heads": 7},
        {"enc_depth": "deep"},
    ],
)
def test_unsupported_variants_are_refused(change: dict) -> None:
    arguments = {
        "img_size": [512, 512],
        "head_type": "catmlp+dpt",
        "output_mode": "pts3d+desc24",
        "pos_embed": "RoPE100",
        "two_confs": True,
        "depth_mode": ["exp", "-inf", "inf"],
        "conf_mode": ["exp", 1, "inf"],
        "enc_embed_dim": 1024,
        "enc_num_heads": 16,
        "dec_embed_dim": 768,
        "dec_num_heads": 12,
    }
    architecture_from_arguments(arguments, "config.json")
    with pytest.raises(InputError, match=r"config\.json"):
        architecture_from_arguments({**arguments, **change}, "config.json")
