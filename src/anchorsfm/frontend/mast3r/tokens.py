"""Encoder tokens of the images: made once, kept under a memory bound, beyond it on disk.

Images are encoded one at a time, so that their tokens do not depend on which others were asked for. What goes to disk
keeps its bits. Entries on disk are keyed by content, so a run that was stopped finds them again; they are removed when
the cache is no longer in use.
"""

import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from anchorsfm.io.store import Store
from anchorsfm.networks.mast3r import EncodedImages
from anchorsfm.scene.errors import StorageError

KIND = "mast3r-tokens"


class TokenCache:
    """Tokens by image. Those least recently used leave the memory first."""

    def __init__(
        self,
        encode: Callable[[int], EncodedImages],
        keys: Sequence[str],
        store: Store,
        limit_bytes: int,
        device: torch.device,
        *,
        is_shared: bool = False,
    ) -> None:
        """`encode` makes the tokens of one image, on `device`; `keys` identify each image and all its tokens depend on.

        A store that stores nothing is replaced by a temporary folder. `is_shared`: others use what is on disk, and
        remove it.
        """
        self._encode = encode
        self._keys = tuple(keys)
        self._limit = limit_bytes
        self._device = device
        self._kept: OrderedDict[int, EncodedImages] = OrderedDict()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if not store.keeps:
            self._temporary = tempfile.TemporaryDirectory(prefix="anchorsfm-tokens-")
            store = Store(Path(self._temporary.name))
        self._store = store
        self.close = weakref.finalize(self, _discard_all, store, () if is_shared else self._keys)
        """Removes what is on disk; happens by itself when the cache is no longer used."""

    @property
    def bytes_kept(self) -> int:
        """In memory."""
        return sum(_num_bytes(encoded) for encoded in self._kept.values())

    def __call__(self, image: int) -> EncodedImages:
        """Tokens of one image, a batch of one."""
        if image in self._kept:
            self._kept.move_to_end(image)
            return self._kept[image]
        encoded = self._load(image)
        if encoded is None:
            encoded = self._encode(image)
        self._kept[image] = encoded
        while self._kept and self.bytes_kept > self._limit:
            self._spill(*self._kept.popitem(last=False))
        return encoded

    def save(self, image: int) -> None:
        """Let the tokens of an image be on disk."""
        self._spill(image, self(image))

    def is_saved(self, image: int) -> bool:
        """Whether the tokens of an image are on disk."""
        return self._store.has(KIND, self._keys[image])

    def _load(self, image: int) -> EncodedImages | None:
        stored = self._store.load(KIND, self._keys[image])
        if stored is None:
            return None
        rows, columns = stored["grid_hw"].tolist()
        tokens = torch.from_numpy(stored["tokens"]).to(self._device)
        return EncodedImages(tokens=tokens, grid_hw=(rows, columns))

    def _spill(self, image: int, encoded: EncodedImages) -> None:
        if not self.is_saved(image):
            arrays = {"tokens": encoded.tokens.cpu().numpy(), "grid_hw": np.array(encoded.grid_hw, np.int64)}
            self._store.save(KIND, self._keys[image], arrays)


def _num_bytes(encoded: EncodedImages) -> int:
    return encoded.tokens.numel() * encoded.tokens.element_size()


def _discard_all(store: Store, keys: Sequence[str]) -> None:
    with suppress(StorageError):  # they are in nobody's way
        for key in keys:
            store.remove(KIND, key)
