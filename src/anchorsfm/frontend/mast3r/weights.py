"""Trained weights: where they come from, what network they are for, under which terms, and what identifies them.

`--weights` is a Hugging Face id or a local .safetensors or .pth file. The architecture is read from `config.json`
beside the file, from the record in a .pth, or from the shapes of the parameters. A .pth is a pickle: it is read with
torch's restricted unpickler, which knows tensors and, here, `argparse.Namespace`; anything else is refused, not run.
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from anchorsfm.io.json_files import read_json
from anchorsfm.io.store import digest
from anchorsfm.io.weights.checkpoint import as_parameters, read_checkpoint
from anchorsfm.io.weights.identity import file_sha256, is_sha256
from anchorsfm.io.weights.licence import LicenceRecord, require_acceptance
from anchorsfm.networks.mast3r import (
    Architecture,
    PairNetwork,
    architecture_from_arguments,
    architecture_from_shapes,
    build_network,
    check_shapes,
    parse_constructor,
)
from anchorsfm.scene.errors import InputError

_CC = "Creative Commons BY-NC-SA 4.0 (no commercial use)"
_MAST3R_TERMS = (
    f"{_CC} and the terms of every data set the network was trained on, of which those of Map-free Relocalization are "
    "the most restrictive: see the notice on checkpoints at https://github.com/naver/mast3r"
)
_DUST3R_TERMS = f"{_CC} and the terms of every data set the network was trained on: see https://github.com/naver/dust3r"
_UNKNOWN_TERMS = "those stated on the page of the model at https://huggingface.co/{name}"
_OWN_TERMS = "unknown: the file is the user's own"


@dataclass(frozen=True, kw_only=True)
class KnownWeights:
    """Published weights."""

    name: str
    """Hugging Face id."""
    description: str
    terms: str
    architecture: Architecture
    num_parameters: int

    @property
    def size_bytes(self) -> int:
        """Of the download, in float32."""
        return 4 * self.num_parameters


_DPT = Architecture(head="dpt", descriptor_width=0)
_LINEAR = Architecture(head="linear", descriptor_width=0)
KNOWN_WEIGHTS: tuple[KnownWeights, ...] = (
    KnownWeights(
        name="naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric",
        description="MASt3R: metric pointmaps and descriptors, 512 px",
        terms=_MAST3R_TERMS,
        architecture=Architecture(),
        num_parameters=688_638_856,
    ),
    KnownWeights(
        name="naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt",
        description="DUSt3R: pointmaps, 512 px, DPT head",
        terms=_DUST3R_TERMS,
        architecture=_DPT,
        num_parameters=571_171_208,
    ),
    KnownWeights(
        name="naver/DUSt3R_ViTLarge_BaseDecoder_512_linear",
        description="DUSt3R: pointmaps, 512 px, linear head",
        terms=_DUST3R_TERMS,
        architecture=_LINEAR,
        num_parameters=532_342_784,
    ),
    KnownWeights(
        name="naver/DUSt3R_ViTLarge_BaseDecoder_224_linear",
        description="DUSt3R: pointmaps, 224 px squares, linear head",
        terms=_DUST3R_TERMS,
        architecture=Architecture(head="linear", descriptor_width=0, image_size=224),
        num_parameters=532_342_784,
    ),
)
DEFAULT_WEIGHTS = KNOWN_WEIGHTS[0].name


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """Weights on this computer that fit their architecture."""

    source: str
    """What the user asked for: a Hugging Face id or a file."""
    path: Path
    architecture: Architecture
    licence: LicenceRecord
    digest: str
    """Identifies contents and architecture: what depends on the weights is cached under it."""


def resolve_weights(source: str = DEFAULT_WEIGHTS, *, accept_license: bool = False) -> WeightsFile:
    """Find or download weights, and check that they are complete.

    Raises InputError if they cannot be had, are not complete, or their licence has not been accepted.
    """
    local = _local_file(source)
    if local is None:
        known = _known_by_name(source)
        terms = known.terms if known else _UNKNOWN_TERMS.format(name=source)
        licence = require_acceptance(source, terms, accept=accept_license)  # before the download
        path = _download(source)
    else:
        path, licence = local, None
    architecture = _check(path)
    return WeightsFile(
        source=source,
        path=path,
        architecture=architecture,
        licence=licence or _local_licence(path, architecture, accept_license),
        digest=digest("mast3r weights", _file_sha256(path), architecture),
    )


def load_network(weights: WeightsFile) -> PairNetwork:
    """The network in float32 on the CPU, ready for inference."""
    return build_network(weights.architecture, _read_parameters(weights.path), str(weights.path))


# -------------------------------------------------------------------------------------------------- finding the file


def _local_file(source: str) -> Path | None:
    """The file that `source` names, None for a Hugging Face id."""
    path = Path(source).expanduser()
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            raise InputError(f"{source} is a folder without model.safetensors: give the file of the weights")
    if path.is_file():
        if path.suffix not in (".safetensors", ".pth", ".pt"):
            raise InputError(f"{source}: weights are read from .safetensors and .pth files")
        return path
    if path.suffix in (".safetensors", ".pth", ".pt") or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise InputError(f"{source}: no such file, and not a Hugging Face id such as {DEFAULT_WEIGHTS}")
    return None


def _download(name: str) -> Path:
    """The weights of a Hugging Face id, with config.json beside them if there is one; downloaded once."""
    hub = _hub()
    try:
        path = Path(hub.hf_hub_download(name, "model.safetensors"))
    except Exception as error:  # the client raises the errors of several network libraries
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"cannot download {name} from Hugging Face ({reason}); check the name and the network, or give a local file"
        ) from error
    try:
        hub.hf_hub_download(name, "config.json")
    except Exception:  # shapes tell the architecture as well
        return path
    return path


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            "downloading weights needs an extra package: pip install 'anchorsfm[mast3r]', or give a local file"
        ) from error
    return huggingface_hub


# --------------------------------------------------------------------------------------------------- reading the file


def _check(path: Path) -> Architecture:
    """The architecture the parameters are for. Raises InputError if they are not complete."""
    source = str(path)
    shapes, arguments = _read_header(path)
    arguments = _read_config(path.with_name("config.json")) or arguments
    if arguments is None:
        architecture = architecture_from_shapes(shapes, source)
    else:
        architecture = architecture_from_arguments(arguments, source)
    check_shapes(architecture, shapes, source)
    return architecture


def _read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any] | None]:
    """Shapes of all parameters, and the constructor arguments if the file records them."""
    if path.suffix != ".safetensors":
        parameters, arguments = _read_checkpoint(path)
        return {name: tuple(value.shape) for name, value in parameters.items()}, arguments
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, None  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); download it again") from error


def _read_parameters(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return _read_checkpoint(path)[0]
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); download it again") from error


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Parameters and constructor arguments of a .pth: a state dictionary, or one under "model" beside "args"."""
    content = read_checkpoint(path, [argparse.Namespace])
    wrapped = isinstance(content, Mapping) and isinstance(content.get("model"), Mapping)
    parameters = as_parameters(content["model"] if wrapped else content, path)
    description = getattr(content.get("args"), "model", None) if wrapped else None
    arguments = parse_constructor(description, str(path)) if isinstance(description, str) else None
    return parameters, arguments


def _read_config(path: Path) -> dict[str, Any] | None:
    """Constructor arguments from config.json, None if there is no such file."""
    if not path.exists():
        return None
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} does not describe a network")
    return value


# ----------------------------------------------------------------------------------------------- terms and identity


def _known_by_name(name: str) -> KnownWeights | None:
    return next((known for known in KNOWN_WEIGHTS if known.name == name), None)


def _local_licence(path: Path, architecture: Architecture, accept: bool) -> LicenceRecord:
    """A local file of a published architecture is taken for the published weights, whatever its name."""
    known = next((known for known in KNOWN_WEIGHTS if known.architecture == architecture), None)
    if known is None:
        return LicenceRecord(weights=str(path), terms=_OWN_TERMS, accepted="not asked")
    return require_acceptance(known.name, known.terms, accept=accept)


def _file_sha256(path: Path) -> str:
    """Raises InputError if a download is damaged: Hugging Face's cache names files by their SHA-256."""
    value, target = file_sha256(path), path.resolve()
    if is_sha256(target.name) and target.name != value:
        raise InputError(f"{path} is damaged: delete {target} and download it again")
    return value
