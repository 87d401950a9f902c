"""Connecting a run to a Ray cluster: one that is there, or one of this machine for the time of the run."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from anchorsfm.cluster.executor import RayExecutor
from anchorsfm.cluster.nodes import require_same_everywhere
from anchorsfm.io.store import Store
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.executor import Executor
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress

_REACH_S = 5.0
_ANSWER_S = 20.0
_OBJECT_STORE_BYTES = 128 * 2**20
"""Of a local cluster: tools and parts are small, results go to the cache."""
_WANTS_TOKEN = b"InvalidAuthToken"
"""Said by a cluster with token authentication: ray start turns it on where there is a token, as ray.init makes one."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
}
"""Environment of a cluster of ours: nobody is told about it, and nobody watches it, so it gathers no figures."""


@contextmanager
def connected(address: str, num_workers: int, store: Store, images: ImageSet, progress: Progress) -> Iterator[Executor]:
    """An executor that computes on a cluster.

    Args:
        address: local; auto: the cluster that this machine belongs to; or HOST:PORT.
        num_workers: processes of a local cluster.
        store: its folder must be seen by every node under the same path, or its URL if it has one.
        images: their folder must be seen too, or the URL that they were fetched from.
        progress: is told how large the cluster is.

    Raises InputError if it cannot be reached, or a node of it cannot do the work.
    """
    if ray.is_initialized():  # by whoever called us
        require_same_everywhere(store, images)
        yield RayExecutor()
        return
    temporary = Path(tempfile.mkdtemp(prefix="anchorsfm-ray-", dir=_short_folder())) if address == "local" else None
    try:
        with _own_signals():
            _start(temporary, num_workers) if temporary else _join(address)
        with _without_remarks():
            if temporary is None:
                require_same_everywhere(store, images)
            nodes = [node for node in ray.nodes() if node["Alive"]]
            progress.note(f"Ray: {int(ray.cluster_resources().get('CPU', 0))} processors on {len(nodes)} nodes")
            yield RayExecutor()
    finally:
        ray.shutdown()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def require_reachable(address: str) -> None:
    """Raise InputError if no cluster answers at an address, within `_REACH_S` and `_ANSWER_S`."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):  # auto or local
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster can be reached at {address} ({getattr(error, 'strerror', None) or error}): start one with "
            "ray start --head, or use local"
        ) from None
    # in a process of its own: where something else listens, Ray tries for minutes and cannot be interrupted
    health_check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        subprocess.run(health_check, capture_output=True, timeout=_ANSWER_S, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        if _WANTS_TOKEN in (getattr(error, "stderr", None) or b""):
            raise InputError(
                f"the Ray cluster at {address} wants a token: set RAY_AUTH_MODE=token here and on its nodes, all with "
                "the same ~/.ray/auth_token"
            ) from None
        raise InputError(
            f"what listens at {address} does not answer as a Ray cluster of the version here, {ray.__version__}: give "
            "the address that ray start --head shows, or use local"
        ) from None


def _start(temporary: Path, num_workers: int) -> None:
    # its workers import what this process would
    surroundings = {**QUIET, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        with _environment(surroundings):
            ray.init(
                address="local",
                num_cpus=num_workers,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(temporary),
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(f"Ray cannot be started on this machine: {_first_line(error)}; leave it out") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Inside, processes that are started have these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = "on this machine" if address == "auto" else f"at {address} ({_first_line(error)})"
        raise InputError(
            f"no Ray cluster can be used {where}: start one with ray start --head, or use local"
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes the handler of SIGTERM, and its processes the mask of ours: with SIGTERM blocked they would not end."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        if signal.SIGTERM in blocked:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep Ray's remarks about workers that died off the terminal: the executor says what came of them."""
    printing = getattr(ray._private.worker, "print_to_stdstream", None)  # no public way
    if printing is None:
        yield
        return
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        ray._private.worker.print_to_stdstream = printing


def _short_folder() -> str | None:
    """Where folders of sockets may be: paths of sockets have a hundred characters at most."""
    return "/tmp" if Path("/tmp").is_dir() else None


def _first_line(error: Any) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".:")
