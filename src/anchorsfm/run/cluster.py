"""Whether and where a run computes on other machines: light to import, Ray is loaded where it is asked for."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from anchorsfm.scene.errors import InputError
from anchorsfm.scene.executor import IN_PROCESS
from anchorsfm.scene.progress import Progress

if TYPE_CHECKING:
    from anchorsfm.io.store import Store
    from anchorsfm.scene.images import ImageSet

_NO_RAY = "computing on many machines needs an extra package: pip install 'anchorsfm[ray]'"
_ADDRESS = re.compile(r"(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")


def parse_cluster(text: str) -> str:
    """The cluster that a setting names. Raises InputError for what is no address."""
    found = _ADDRESS.fullmatch(text)
    if text in ("auto", "local") or (found and 0 < int(found["port"]) < 65536):
        return text
    raise InputError("must be auto, local, or HOST:PORT as ray start --head shows it")


def check_cluster(address: str) -> None:
    """Raise InputError if Ray is not installed, or nothing listens at the address."""
    if find_spec("ray") is None:
        raise InputError(_NO_RAY)
    from anchorsfm.cluster.connection import require_reachable

    require_reachable(address)


@contextmanager
def computing_on(
    address: str | None, store: "Store", images: "ImageSet", num_workers: int, progress: Progress
) -> Iterator[None]:
    """Inside, stages let the cluster fill the store ahead; without an address nothing changes.

    Raises InputError if the cluster cannot be used, or a node does not see the store or the photographs.
    """
    if address is None or not store.keeps:
        yield
        return
    from anchorsfm.cluster.connection import connected

    with connected(address, num_workers, store, images, progress) as store.executor:
        try:
            yield
        finally:
            store.executor = IN_PROCESS
