"""Files of arrays that belong to a result."""

from pathlib import Path

import numpy as np

from anchorsfm.io.sealed import read_sealed, write_sealed


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6.0).reshape(2, 3), "a": np.zeros((0, 2), np.uint8)}
    for number in range(12):
        write_sealed(tmp_path / str(number), "kind", 'Größe: "1"', arrays)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    found = read_sealed(tmp_path / "0", "kind", "make it again")
    assert found is not None and found[0] == 'Größe: "1"' and set(found[1]) == set(arrays)
    assert all(np.array_equal(found[1][name], array) for name, array in arrays.items())
