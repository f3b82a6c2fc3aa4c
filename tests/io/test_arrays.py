import numpy as np
import pytest

from protembed.io.arrays import ArrayFile, array_file


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


@pytest.mark.parametrize("row_shape", [(), (3,)])
def test_parts_of_an_array_in_a_file_are_read(tmp_path, row_shape):
    rows = np.arange(20 * int(np.prod(row_shape)), dtype=np.float32).reshape(20, *row_shape)
    np.save(tmp_path / "rows.npy", rows)

    stored = ArrayFile.from_mapped(np.load(tmp_path / "rows.npy", mmap_mode="r"))

    assert len(stored) == 20
    assert np.array_equal(stored.rows(3, 7), rows[3:7])
    assert np.array_equal(stored.rows(18, 30), rows[18:])
    assert stored.rows(25, 30).shape == (0, *row_shape)
    assert np.array_equal(stored.take(np.array([5, 0, 5, 19])), rows[[5, 0, 5, 19]])
    assert stored.take(np.zeros(0, np.int64)).shape == (0, *row_shape)
    first, second = stored.spans(np.array([2, 9]), np.array([4, 0]))
    assert np.array_equal(first, rows[2:6])
    assert second.shape == (0, *row_shape)
