import numpy as np
import pytest

from protembed.io.arrays import array_file


@pytest.mark.parametrize("num_rows", [0, 1, 12_345])
@pytest.mark.parametrize("row_shape", [(), (3,), (2, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_a_growing_array_is_a_plain_npy_file(tmp_path, num_rows, row_shape, dtype):
    rows = np.arange(num_rows * int(np.prod(row_shape))).reshape(num_rows, *row_shape) % 251

    with array_file(tmp_path / "rows.npy", row_shape, dtype) as stream:
        stream.append(rows[:1])
        stream.append(rows[1:])

    for mmap_mode in (None, "r"):
        loaded = np.load(tmp_path / "rows.npy", mmap_mode=mmap_mode)
        assert (loaded.dtype, loaded.shape) == (np.dtype(dtype), rows.shape)
        assert (loaded == rows).all()
    assert stream.num_rows == num_rows
