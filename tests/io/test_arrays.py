import io

import numpy as np
import pytest

from protembed.io.arrays import ArrayStream, array_file, write_arrays


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


def test_a_growing_array_can_begin_in_the_middle_of_a_file():
    file = io.BytesIO(b"before")
    file.seek(0, io.SEEK_END)

    array = ArrayStream(file, (2,), np.float32)
    array.append(np.ones((3, 2)))
    array.finish()
    file.write(b"after")

    file.seek(0)
    assert file.read(6) == b"before"
    assert np.load(file).tolist() == [[1, 1]] * 3
    assert file.read() == b"after"


def test_written_arrays_are_read_back_under_their_names(tmp_path):
    arrays = {"maps": np.ones((2, 3), np.float16), "rows": np.arange(4)}

    write_arrays(tmp_path / "arrays.npz", arrays)

    with np.load(tmp_path / "arrays.npz") as loaded:
        assert {name: loaded[name].tolist() for name in loaded} == {
            name: array.tolist() for name, array in arrays.items()
        }
