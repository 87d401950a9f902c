"""What every node of a cluster must have: this version, the photographs, and the store of the run."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from anchorsfm.io.layout import TEMPORARY_PREFIX
from anchorsfm.io.remote import RemoteFolder
from anchorsfm.io.store import Store, storage_error
from anchorsfm.scene.errors import AnchorSfMError, InputError
from anchorsfm.scene.images import ImageSet

_ANSWER_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a node sees."""

    host: str
    version: str
    problem: str | None
    """What it cannot use, and the way out."""


def look(photographs: str, probe: "Probe", origin: "Probe | None") -> Look:
    """In a worker: what is there. `origin`: a photograph at the URL that they were fetched from."""
    problem = probe.problem()
    if problem is None and not os.path.exists(photographs):  # noqa: PTH110 - a name that may be no path
        problem = unseen(photographs) if origin is None else origin.problem()
    return Look(host=socket.gethostname(), version=_version(), problem=problem)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A file that a node must find."""

    place: Path | RemoteFolder
    name: str

    def problem(self) -> str | None:
        """Of this machine, if it does not see it."""
        if isinstance(self.place, Path):
            return None if (self.place / self.name).exists() else unseen(self.place)
        try:
            self.place.require_package()
            return (
                None if self.place.read(self.name) is not None else f"does not find in {self.place.url} what is there"
            )
        except AnchorSfMError as error:
            return f"says: {error}"


def unseen(folder: Path | str) -> str:
    """The problem of a node that does not see a folder."""
    return f"does not see {folder}: put photographs and output into folders that all machines share"


def _version() -> str:
    """Of the package that is imported, installed or not; a lower layer does not import it by name."""
    return str(import_module("anchorsfm").__version__)


def require_same_everywhere(store: Store, images: ImageSet) -> None:
    """Raise InputError, naming the node, if one lacks the package in this version, or does not see the folder of the
    photographs (nor the URL they were fetched from) or what this process writes to the store."""
    version = _version()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise InputError("the Ray cluster has no processors: start nodes with ray start --address")
    found_at = images.origin(images.path(0))
    origin = None if found_at is None else Probe(place=RemoteFolder(found_at[0]), name=found_at[1])
    with _probe(store) as probe:
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(look).options(scheduling_strategy=there, max_retries=0, num_cpus=0)
            asked[node["NodeManagerAddress"]] = task.remote(str(images.root.absolute()), probe, origin)
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
            if found.problem is not None:
                raise InputError(f"node {address} ({found.host}) of the Ray cluster {found.problem}")


@contextmanager
def _probe(store: Store) -> Iterator[Probe]:
    """There is something in the store that was not there before."""
    name = f"{TEMPORARY_PREFIX}seen-{secrets.token_hex(8)}"
    if store.remote is not None:
        store.remote.write(name, b"seen")
        try:
            yield Probe(place=store.remote, name=name)
        finally:
            store.remote.remove(name)
        return
    assert store.root is not None
    folder = store.root.absolute()
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        yield Probe(place=folder, name=name)
    finally:
        with suppress(OSError):
            path.unlink()


def _reason(error: BaseException) -> str:
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return f"no answer within {_ANSWER_S:.0f} s"
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
