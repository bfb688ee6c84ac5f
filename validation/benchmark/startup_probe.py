"""Time a program from process start to first outputs: it loads a SavedModel and runs it on one image.

    python startup_probe.py DIRECTORY SIZE CLOCK

prints, as JSON, the seconds of each step, and the processor seconds of the calling thread in the first call: that
thread traces and optimises the graph, while operations and compilers run on other threads. CLOCK is `time.monotonic()`
just before the process was started. It needs nothing else of this project.
"""

import time

STARTED = time.monotonic()  # before anything else is imported

import json  # noqa: E402
import sys  # noqa: E402


def main() -> None:
    """Load the model, run it twice, and print how long each step took."""
    directory, size, clock = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    marks = [clock, STARTED]
    import tensorflow as tf

    marks.append(time.monotonic())
    model = tf.saved_model.load(directory)
    marks.append(time.monotonic())
    begin = time.thread_time()
    model(tf.zeros((1, size, size, 3))).numpy()
    prepared = time.thread_time() - begin
    marks.append(time.monotonic())
    model(tf.zeros((1, size, size, 3))).numpy()
    marks.append(time.monotonic())
    names = ("interpreter", "imports", "load", "first", "second")
    steps = {name: marks[place + 1] - marks[place] for place, name in enumerate(names)} | {"prepared": prepared}
    sys.stdout.write(json.dumps(steps) + "\n")


if __name__ == "__main__":
    main()
