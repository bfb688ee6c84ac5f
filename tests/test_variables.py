"""Variables written from arrays: the very bytes that TensorFlow's own saving writes."""

import errno

import numpy as np
import pytest
import tensorflow as tf

from export.saved_model import variables as module
from export.saved_model.variables import PREFIX, Layout, copy_with_variables

ARRAYS = {
    "stem/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "stem/bias": np.float32([1, -2, np.pi]),
    "head": np.float32([[7]]),
}


def save_slowly(directory, values=ARRAYS):
    """Save through variables, all of TensorFlow's own."""
    model = tf.train.Checkpoint()
    model.variables = [tf.Variable(value, name=name) for name, value in values.items()]
    tf.saved_model.save(model, str(directory))
    return Layout.read(directory, values)


def contents(directory):
    return {path.name: path.read_bytes() for path in (directory / "variables").iterdir()}


def key_of(layout, name):
    return {name: key for key, name in layout.names.items()}[name]


@pytest.fixture
def layout(tmp_path):
    """The layout, from a SavedModel of empty variables."""
    return save_slowly(tmp_path / "empty", {name: np.zeros(0, np.float32) for name in ARRAYS})


def test_the_bytes_are_those_of_tensorflows_own_saving(layout, tmp_path):
    save_slowly(tmp_path / "slow")
    (tmp_path / "fast").mkdir()
    layout.write(ARRAYS, tmp_path / "fast")
    assert contents(tmp_path / "fast") == contents(tmp_path / "slow")
    changed = ARRAYS | {"head": np.float32([[8]])}
    layout.write(changed, tmp_path / "fast")
    assert contents(tmp_path / "fast") != contents(tmp_path / "slow")


def test_the_order_of_the_arrays_does_not_matter(layout, tmp_path):
    for folder, arrays in (("one", ARRAYS), ("two", dict(reversed(ARRAYS.items())))):
        (tmp_path / folder).mkdir()
        layout.write(arrays, tmp_path / folder)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_arrays_that_are_read_only_or_not_in_order_are_written_all_the_same(layout, tmp_path):
    kernel = np.asfortranarray(ARRAYS["stem/kernel"])
    kernel.flags.writeable = False
    layout.write(ARRAYS | {"stem/kernel": kernel}, tmp_path)
    written = tf.train.load_checkpoint(str(tmp_path / PREFIX)).get_tensor(key_of(layout, "stem/kernel"))
    np.testing.assert_array_equal(written, ARRAYS["stem/kernel"])


def test_no_array_is_copied(layout, tmp_path, monkeypatch):
    given = {}
    real = tf.raw_ops.SaveV2

    def look(**options):
        given.update(zip(options["tensor_names"], options["tensors"], strict=True))
        real(**options)

    monkeypatch.setattr(module.tf.raw_ops, "SaveV2", look)
    arrays = {name: array.copy() for name, array in ARRAYS.items()}
    layout.write(arrays, tmp_path)
    arrays["stem/bias"][0] = 99  # seen through the tensor, if it shares its memory
    assert given[key_of(layout, "stem/bias")].numpy()[0] == 99


def test_a_full_disk_is_an_error_of_the_system(layout, tmp_path, monkeypatch):
    def fill_up(**_):
        message = "{{function_node SaveV2}} /x/variables/part-00000; No space left on device [Op:SaveV2]"
        raise tf.errors.ResourceExhaustedError(None, None, message)

    monkeypatch.setattr(module.tf.raw_ops, "SaveV2", fill_up)
    with pytest.raises(OSError, match=r"No space left on device$") as raised:
        layout.write(ARRAYS, tmp_path)
    assert raised.value.errno == errno.ENOSPC


def test_a_copy_has_other_values_for_variables_that_there_are(layout, tmp_path):
    save_slowly(tmp_path / "slow")
    copy_with_variables(tmp_path / "slow", tmp_path / "copy", {"head": np.float32([[8]])})
    written = tf.train.load_checkpoint(str(tmp_path / "copy" / PREFIX))
    for name, expected in (ARRAYS | {"head": np.float32([[8]])}).items():
        np.testing.assert_array_equal(written.get_tensor(key_of(layout, name)), expected, strict=True)
    with pytest.raises(KeyError, match="no variables tail"):
        copy_with_variables(tmp_path / "slow", tmp_path / "other", {"tail": np.float32([[8]])})
    assert not (tmp_path / "other").exists()
