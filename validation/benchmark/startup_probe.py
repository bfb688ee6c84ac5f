"""Process start to first outputs: what a program waits for that loads a SavedModel and shows it one image.

    python start.py DIRECTORY SIZE CLOCK

is that program: it prints, as JSON, the seconds that each step took, and how long the calling thread worked in the
first call: it traces and optimises the graph, while operations and compilers run on others. CLOCK is
`time.monotonic()` just before it was started. It needs nothing of this project.
"""

import time

STARTED = time.monotonic()  # before anything else is imported

import json  # noqa: E402
import sys  # noqa: E402


def main() -> None:
    """Load the model, run it twice, and say what took how long."""
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
