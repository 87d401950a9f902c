"""Networks of the published structure that are tiny and random, written as the files a user would give."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from anchorsfm.networks.mast3r import Architecture, architecture_from_arguments, parameter_shapes
from anchorsfm.networks.mast3r.loading import aliases

MAST3R: dict[str, Any] = {
    "output_mode": "pts3d+desc24",
    "head_type": "catmlp+dpt",
    "pos_embed": "RoPE100",
    "two_confs": True,
    "img_size": [96, 96],
    "enc_embed_dim": 32,
    "enc_depth": 2,
    "enc_num_heads": 2,
    "dec_embed_dim": 32,
    "dec_depth": 4,
    "dec_num_heads": 2,
    "dpt_overrides": {"layer_dims": [4, 6, 8, 10], "feature_dim": 8, "last_dim": 4},
}
DUST3R = {
    **{name: value for name, value in MAST3R.items() if name not in ("two_confs", "dpt_overrides")},
    "output_mode": "pts3d",
    "head_type": "linear",
}


def stored_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters that a file holds: those with two names once."""
    second_names = aliases(architecture)
    return {name: shape for name, shape in parameter_shapes(architecture).items() if name not in second_names}


def random_parameters(architecture: Architecture) -> dict[str, Tensor]:
    """The same ones each time."""
    generator = torch.Generator().manual_seed(0)
    parameters: dict[str, Tensor] = {}
    for name, shape in stored_shapes(architecture).items():
        scale = 0.1 if len(shape) == 1 else float(np.prod(shape[1:])) ** -0.5
        parameters[name] = scale * torch.randn(shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameters[name] += 1
    return parameters


def write_weights(folder: Path, arguments: dict[str, Any]) -> str:
    folder.mkdir()
    parameters = random_parameters(architecture_from_arguments(arguments, "test"))
    save_file(parameters, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(arguments))
    return str(folder / "model.safetensors")
