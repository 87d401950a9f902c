"""What every node of a cluster must have: this version, and the folders of the run under the same paths."""

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from anchorsfm.io.store import TEMPORARY_PREFIX, storage_error
from anchorsfm.scene.errors import InputError

_ANSWER_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a node sees."""

    host: str
    version: str
    missing: tuple[str, ...]
    """Paths that it does not see."""


def look(paths: Sequence[str]) -> Look:
    """In a worker: what is there."""
    missing = tuple(path for path in paths if not os.path.exists(path))  # noqa: PTH110 - names that may be no paths
    return Look(host=socket.gethostname(), version=_version(), missing=missing)


def _version() -> str:
    """Of the package that is imported, installed or not; a lower layer does not import it by name."""
    return str(import_module("anchorsfm").__version__)


def require_same_everywhere(folders: Sequence[Path]) -> None:
    """Raise InputError, naming the node, if one lacks the package in this version or does not see a folder.

    The first folder is one that this process may write to: nodes must see what it writes there.
    """
    version = _version()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise InputError("the Ray cluster has no processors: start nodes with ray start --address")
    with _probe(folders[0]) as probe:
        paths = [str(probe), *(str(folder.absolute()) for folder in folders)]
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(look).options(scheduling_strategy=there, max_retries=0, num_cpus=0)
            asked[node["NodeManagerAddress"]] = task.remote(paths)
        for address, reference in asked.items():
            try:
                found: Look = ray.get(reference, timeout=_ANSWER_S)
            except (ray.exceptions.RayError, ImportError) as error:
                raise InputError(
                    f"node {address} of the Ray cluster cannot run this program ({_reason(error)}): install "
                    f"anchorsfm {version} there, in the Python that Ray was started with"
                ) from None
            if found.version != version:
                raise InputError(
                    f"node {address} ({found.host}) of the Ray cluster has anchorsfm {found.version}, this machine "
                    f"{version}: install the same everywhere"
                )
            if found.missing:
                path = folders[0] if found.missing[0] == str(probe) else found.missing[0]
                raise InputError(
                    f"node {address} ({found.host}) of the Ray cluster does not see {path}: put photographs and output "
                    "into folders that all machines share"
                )


@contextmanager
def _probe(folder: Path) -> Iterator[Path]:
    """A file that was not there before."""
    path = folder.absolute() / f"{TEMPORARY_PREFIX}seen-{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()


def _reason(error: BaseException) -> str:
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return f"no answer within {_ANSWER_S:.0f} s"
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
