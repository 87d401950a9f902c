"""Robust losses, their hand-written gradients, and schedules."""

import numpy as np
import pytest
import torch

from anchorsfm.align import losses
from anchorsfm.align.losses import (
    PixelClip,
    PointChunks,
    RayChunks,
    RobustLoss,
    matching_loss_3d,
    regression_loss,
    reprojection_loss,
)
from anchorsfm.align.observations import lay_out
from anchorsfm.align.schedules import cosine, linear


def test_robust_losses_agree_with_recorded(golden):
    data = np.load(golden / "losses_schedules.npz")
    keys = [key.removesuffix("_value") for key in data if key.endswith("_value")]
    assert len(keys) == 16
    for key in keys:
        gamma, clip, mul, offset = (part.lstrip("gclipmuof") for part in key.split("_"))
        robust = RobustLoss(
            float(gamma),
            None if offset == "None" else float(offset),
            float(mul),
            None if clip == "None" else float(clip),
        )
        x, y = (torch.tensor(data[name], requires_grad=True) for name in ("x", "y"))
        value = robust(x, y)
        grad_x, grad_y = torch.autograd.grad(value.sum(), (x, y))
        np.testing.assert_allclose(value.detach(), data[f"{key}_value"], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(grad_x, data[f"{key}_gradx"], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(grad_y, data[f"{key}_grady"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 1.1, 1.5, 2.0])
def test_slope_at_zero_is_one(gamma):
    value, slope = RobustLoss(gamma).value_and_slope(torch.tensor([0.0, 1e-6], dtype=torch.float64))
    assert value[0] == 0
    assert slope.tolist() == pytest.approx([1, 1], abs=1e-4)
    assert value[1].item() == pytest.approx(1e-6, rel=1e-4)


def test_schedules_agree_with_recorded(golden):
    data = np.load(golden / "losses_schedules.npz")
    for key in data:
        name, _, rest = key.partition("_base")
        if name not in ("linear", "cosine"):
            continue
        base, end = (float(part) for part in rest.split("_end"))
        schedule = {"linear": linear, "cosine": cosine}[name]
        np.testing.assert_allclose([schedule(a, base, end) for a in data["alpha"]], data[key], rtol=1e-12, atol=1e-15)


def ray_inputs(target_dim, seed=0):
    torch.manual_seed(seed)
    double = torch.float64
    chunks = RayChunks(
        pair=torch.tensor([0, 0, 1]),
        pixel=torch.cat([4 * torch.randn(3, 2, 5, dtype=double), torch.ones(3, 1, 5, dtype=double)], 1),
        anchor=torch.randint(0, 6, (3, 5), dtype=torch.int32),
        relief=0.2 * torch.randn(3, 5, dtype=double),
        target=3 * torch.randn(3, target_dim, 5, dtype=double),
        weight=torch.rand(3, 5, dtype=double),
    )
    rotation = torch.eye(3, dtype=double) + 0.05 * torch.randn(2, 3, 3, dtype=double)
    rotation[:, 2, :2] *= 0.1
    return chunks, [
        rotation.requires_grad_(),
        torch.tensor([[0.3, 0.2, 0.5], [-0.2, 0.1, 0.4]], dtype=double).requires_grad_(),
        (1 + torch.rand(6, dtype=double)).requires_grad_(),
        torch.tensor([0.9, 1.1], dtype=double).requires_grad_(),
    ]


WIDE = PixelClip(torch.full((2, 2), -1e6, dtype=torch.float64), torch.full((2, 2), 1e6, dtype=torch.float64))


@pytest.mark.parametrize("gamma", [0.5, 1.1, 1.5])
@pytest.mark.parametrize("slab", [1, 2, 64])
def test_gradients_of_the_reprojection_loss(gamma, slab, monkeypatch):
    monkeypatch.setattr(losses, "SLAB", slab)
    chunks, inputs = ray_inputs(2)
    assert torch.autograd.gradcheck(lambda *v: reprojection_loss(*v, chunks, RobustLoss(gamma), WIDE), inputs)


def test_gradients_of_the_regression_loss():
    chunks, inputs = ray_inputs(3)
    scale = torch.tensor([0.8, 1.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *v: regression_loss(*v, chunks, RobustLoss(1.1)), [*inputs, scale])


def test_gradients_of_the_matching_loss():
    torch.manual_seed(1)
    points = torch.randn(3, 7, 5, dtype=torch.float64)
    chunks = PointChunks(pair=torch.tensor([0, 1, 1]), points=points, weight=torch.rand(3, 5, dtype=torch.float64))
    matrix = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: matching_loss_3d(m, chunks, RobustLoss(1.5)), [matrix])


def test_reprojection_loss_against_plain_formula():
    """Depths below 1e-3 and pixels outside the clip are held, without a gradient."""
    chunks, (rotation, offset, depth, factor) = ray_inputs(2)
    with torch.no_grad():
        offset[1, 2] = -3.0  # behind the camera
    clip = PixelClip(torch.full((2, 2), -2.0, dtype=torch.float64), torch.full((2, 2), 2.0, dtype=torch.float64))

    def plain(rotation, offset, depth, factor):
        total = torch.zeros((), dtype=torch.float64)
        for c, k in enumerate(chunks.pair.tolist()):
            z = depth[chunks.anchor[c].long()] * (1 + chunks.relief[c] * factor[k])
            y = rotation[k] @ chunks.pixel[c] * z + offset[k][:, None]
            pixel = (y[:2] / y[2].clamp(min=1e-3)).clamp(-2.0, 2.0)
            distance = (pixel - chunks.target[c]).norm(dim=0)
            total = total + (chunks.weight[c] * ((distance + 0.25).sqrt() - 0.5)).sum()
        return total

    inputs = [rotation, offset, depth, factor]
    ours, theirs = reprojection_loss(*inputs, chunks, RobustLoss(0.5), clip), plain(*inputs)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_layout_covers_every_observation_once():
    pair = np.repeat([0, 2, 5], [7, 1, 12])
    layout = lay_out(pair, slot=5)
    assert sorted(layout.row[layout.used].tolist()) == list(range(20))
    assert (pair[layout.row] == layout.pair[:, None]).all()
    assert len(lay_out(np.zeros(0, np.int64)).pair) == 0
