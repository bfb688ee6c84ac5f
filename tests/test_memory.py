"""Memory that is given back: of a model that is of no use any more, and of whatever TensorFlow has freed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from convert.pipeline.frameworks import import_frameworks
from models.catalog import DEFAULT_VERSION, TESTING_HANDLES
from validation.memory import free, keep_large_blocks_apart, release, trim

ROOT = Path(__file__).parent.parent
MEGABYTES = 256


@pytest.mark.parametrize("name", TESTING_HANDLES)
def test_release_empties_every_variable(name, tiny_build):
    model = tf.saved_model.load(str(tiny_build / name / str(DEFAULT_VERSION)))
    assert min(variable.numpy().size for variable in model.variables) > 0
    release(model)
    assert max(variable.numpy().size for variable in model.variables) == 0


def test_what_has_no_variables_is_released_too(monkeypatch):
    freed = []
    monkeypatch.setattr("validation.memory.free", freed.append)
    release(object())
    assert [list(variables) for variables in freed] == [[]]


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_a_variable_of_any_type_is_freed(dtype):
    variable = tf.Variable(np.ones(3, dtype), shape=tf.TensorShape(None))
    free([variable])
    assert (variable.numpy().size, variable.numpy().dtype) == (0, dtype)


def test_another_c_library_does_no_harm(monkeypatch):
    asked = []
    monkeypatch.setattr("ctypes.CDLL", lambda name: asked.append(name) or object())
    trim()
    keep_large_blocks_apart()
    assert asked == [None, None]


BLOCKS = """\
import os, sys
import numpy as np
from validation.memory import keep_large_blocks_apart

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20

if sys.argv[1] == "apart":
    keep_large_blocks_apart()
del [np.ones(12 << 20, np.uint8)][:]  # glibc's limit rises to this size
before = resident()
blocks = [(np.ones(10 << 20, np.uint8), np.ones(200 << 10, np.uint8)) for _ in range(20)]
pins = [pin for _, pin in blocks]
del blocks
print(resident() - before)
"""


def test_large_blocks_go_back_where_they_are_kept_apart():
    left = {}
    for how in ("apart", "together"):
        done = subprocess.run([sys.executable, "-c", BLOCKS, how], cwd=ROOT, capture_output=True, text=True, check=True)
        left[how] = int(done.stdout.split()[-1])
    assert left["apart"] < 20
    assert left["together"] > 100


STARTS = {
    "command line": "from convert.pipeline import frameworks; frameworks.import_frameworks(); import tensorflow as tf",
    "consumer": "from validation import consumer; tf = consumer._tensorflow()",
}
MEASURE = f"""
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20

before = resident()
tensors = [tf.fill([1 << 20, {MEGABYTES} // 4 // 4], 1.0) for _ in range(4)]
held = resident()
del tensors
print(held - before, resident() - before)
"""


def test_onednn_is_told_to_use_the_allocator_of_the_system(monkeypatch):
    monkeypatch.setenv("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "0")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    import_frameworks()
    assert os.environ["TF_ONEDNN_USE_SYSTEM_ALLOCATOR"] == "1"


@pytest.mark.whole
@pytest.mark.parametrize("start", STARTS)
def test_tensorflow_keeps_nothing_of_what_was_freed(start):
    done = subprocess.run(
        [sys.executable, "-c", f"import os\n{STARTS[start]}\n{MEASURE}"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    held, kept = map(int, done.stdout.split())
    assert held >= MEGABYTES
    assert kept < MEGABYTES // 4
