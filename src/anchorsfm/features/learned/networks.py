"""kornia's networks with the released weights, ready for inference; kornia is imported when one is asked for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from anchorsfm.features.config import LearnedDetectorName, NetworkConfig
from anchorsfm.io.weights.checkpoint import as_parameters, read_checkpoint
from anchorsfm.scene.errors import InputError


def load_detector(name: LearnedDetectorName, max_keypoints: int, path: Path, device: torch.device) -> nn.Module:
    """ALIKED, DISK or XFeat."""
    kornia = kornia_features()
    content = read_checkpoint(path)
    network: Any
    if name == "aliked":
        network_class = kornia.ALIKED
        if device.type == "cpu":
            from anchorsfm.features.learned.processor import LeanALIKED as network_class
        network = network_class("aliked-n16", max_num_keypoints=max_keypoints, detection_threshold=0.0)
        _fill(network, content, path)
    elif name == "disk":
        network = kornia.DISK()
        _fill(network, content.get("extractor") if isinstance(content, Mapping) else None, path)
    else:
        network = kornia.XFeat(top_k=max_keypoints)
        _fill(network.net, content, path)
    return _ready(network, device)


def load_lightglue(
    name: LearnedDetectorName, min_score: float, path: Path, device: torch.device, *, half_precision: bool, adapts: bool
) -> nn.Module:
    """LightGlue for the keypoints of a detector.

    adapts: it stops early where all is clear, and drops points that match nothing on the way. Not for batches: the
        layers that a pair runs through would depend on the others.
    """
    kornia = kornia_features()
    settings: dict[str, Any] = dict(kornia.LightGlue.features[name])
    settings |= {"filter_threshold": min_score, "mp": half_precision}
    if not adapts:
        settings |= {"depth_confidence": -1, "width_confidence": -1}
    settings.pop("weights")
    network = kornia.LightGlue(None, **settings)
    parameters = as_parameters(read_checkpoint(path), path)
    _fill(network, _as_kornia_names_them(parameters, settings.get("n_layers", 9)), path)
    if device.type == "cpu":
        from anchorsfm.features.learned.processor import with_fused_attention

        network = with_fused_attention(network)
    return _ready(network, device)


def in_any_process(networks: NetworkConfig, device: torch.device) -> NetworkConfig:
    """The settings for a process elsewhere: the kind of device that was chosen here, as results depend on it, and the
    same folder of weights whatever folder the process runs in."""
    weights = None if networks.weights is None else networks.weights.absolute()
    return replace(networks, device=device.type, weights=weights)  # type: ignore[arg-type]  # names as ours


def kornia_features() -> ModuleType:
    """Raises InputError where kornia is not installed."""
    try:
        import kornia.feature
    except ImportError as error:
        raise InputError("learned keypoints and matches need an extra package: pip install 'anchorsfm[learned]'") from (
            error
        )
    return kornia.feature


def _as_kornia_names_them(parameters: Mapping[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """LightGlue's parameters under today's names: some releases have older ones, LighterGlue's its detector too."""
    own = {name.removeprefix("matcher."): value for name, value in parameters.items() if "extractor." not in name}
    for layer in range(num_layers):
        for block in ("self_attn", "cross_attn"):
            old, new = f"{block}.{layer}.", f"transformers.{layer}.{block}."
            own = {new + name.removeprefix(old) if name.startswith(old) else name: v for name, v in own.items()}
    return own


def _fill(network: nn.Module, content: object, path: Path) -> None:
    """Raises InputError if the file lacks a parameter. Some have more, left over from training."""
    parameters = as_parameters(content, path)
    try:
        missing = network.load_state_dict(parameters, strict=False).missing_keys
    except RuntimeError as error:  # shapes
        raise InputError(f"{path} does not fit its network: {str(error).splitlines()[-1].strip()}") from error
    needed = {name for name, _ in network.named_parameters()}
    if lacking := [name for name in missing if name in needed]:
        raise InputError(f"{path} does not fit its network: it has no {lacking[0]}")


def _ready(network: nn.Module, device: torch.device) -> nn.Module:
    return network.eval().to(device)
