"""A network with given parameters, without initialising it: 689 million random numbers cost more than the file."""

from collections.abc import Mapping

import torch
from torch import Tensor

from anchorsfm.networks.mast3r.architecture import Architecture, Shapes
from anchorsfm.networks.mast3r.network import PairNetwork
from anchorsfm.scene.errors import InputError

_UNUSED = frozenset({"mask_token"})
"""May be missing."""
_MAX_LISTED = 12


def empty_network(architecture: Architecture) -> PairNetwork:
    """The network without memory for its parameters (torch's meta device)."""
    with torch.device("meta"):
        return PairNetwork(architecture)


def parameter_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Every name a complete checkpoint lists, second names of shared parameters included."""
    return {name: tuple(value.shape) for name, value in empty_network(architecture).state_dict().items()}


def aliases(architecture: Architecture) -> dict[str, str]:
    """Second name -> first name of parameters that are listed twice."""
    if architecture.head == "linear":
        return {}
    names = [f"downstream_head{head}.dpt.scratch" for head in (1, 2)]
    return {f"{name}.layer_rn.{k}.weight": f"{name}.layer{k + 1}_rn.weight" for name in names for k in range(4)}


def check_shapes(architecture: Architecture, shapes: Shapes, source: str) -> None:
    """Raises InputError that lists what is missing, unknown or of another shape. `source` names the weights.

    Second names, the unused mask token, and the second decoder (then a copy of the first) may be missing.
    """
    expected = parameter_shapes(architecture)
    second_names = aliases(architecture)
    available = set(shapes)
    available |= {first for second, first in second_names.items() if second in shapes}
    has_second_decoder = _has_second_decoder(shapes)
    missing = [
        name
        for name in expected
        if name not in available | _UNUSED | second_names.keys()
        and not (name.startswith("dec_blocks2.") and not has_second_decoder)
    ]
    unknown = [name for name in shapes if name not in expected]
    misshaped = [
        f"{name} {tuple(shapes[name])} instead of {expected[name]}"
        for name in shapes
        if name in expected and tuple(shapes[name]) != expected[name]
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", misshaped))
    problems = [f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds if names]
    if problems:
        raise InputError(f"{source} does not hold the parameters of this network; " + "; ".join(problems))


def build_network(architecture: Architecture, parameters: Mapping[str, Tensor], source: str) -> PairNetwork:
    """A network in float32 that takes over the given tensors (no copy where they are float32), ready for inference.

    Raises InputError if the parameters do not fit; `source` names them.
    """
    check_shapes(architecture, {name: tuple(value.shape) for name, value in parameters.items()}, source)
    wild = [name for name, value in parameters.items() if not torch.isfinite(value.float().sum())]
    if wild:
        raise InputError(
            f"{source} is damaged: {len(wild)} parameters hold numbers that are not finite: {_listed(wild)}"
        )
    state = _complete(architecture, parameters)
    network = empty_network(architecture)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _complete(architecture: Architecture, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All names a state dictionary needs, in float32."""
    state = {name: value.float() for name, value in parameters.items()}
    if not _has_second_decoder(state):
        # Copied, as the two may be changed apart later (precision, device).
        copies = {name: value.clone() for name, value in state.items() if name.startswith("dec_blocks.")}
        state |= {name.replace("dec_blocks.", "dec_blocks2.", 1): value for name, value in copies.items()}
    for second, first in aliases(architecture).items():
        state[first] = state[first] if first in state else state[second]
        state[second] = state[first]
    state.setdefault("mask_token", torch.zeros(1, 1, architecture.decoder_width))
    return state


def _has_second_decoder(names: Mapping[str, object]) -> bool:
    return any(name.startswith("dec_blocks2.") for name in names)


def _listed(names: list[str]) -> str:
    rest = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
