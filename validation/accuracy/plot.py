"""A picture of which classes a model takes for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.storage.files import written_whole
from validation.accuracy.counts import Answer

_MOST_NAMED = 40  # classes; the names of more would overlap
_LONGEST = 24  # characters of a name
_DARK = 0.6  # shares above this are drawn so dark that black text cannot be read


def draw_confusion(answers: Sequence[Answer], names: Sequence[str] | None, path: Path) -> None:
    """Draw the shares of each class's pictures that a model puts into each class, as a PNG file.

    Rows are the true classes that occur, columns the classes that are true or predicted somewhere. Of several true
    labels the predicted one counts, or else the first.

    Args:
        answers: what the model said of each picture.
        names: the class names, in order.
        path: the file to write.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    pairs = [(one.top[0] if one.is_right(1) else one.labels[0], one.top[0]) for one in answers]
    rows = sorted({label for label, _ in pairs})
    columns = sorted({label for pair in pairs for label in pair})
    counts = np.zeros((len(rows), len(columns)))
    for label, found in pairs:
        counts[rows.index(label), columns.index(found)] += 1
    shares = counts / counts.sum(axis=1, keepdims=True)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(9, 8), dpi=100, layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        figure.colorbar(image, label="share of the true class's pictures")
        for axis, classes in ((axes.xaxis, columns), (axes.yaxis, rows)):
            if len(classes) <= _MOST_NAMED:
                labels = [names[index][:_LONGEST] if names else str(index) for index in classes]
                axis.set_ticks(range(len(classes)), labels, fontsize=7)
        axes.tick_params(axis="x", rotation=90)
        if len(columns) <= _MOST_NAMED:  # a share of a few per cent is too pale to be seen
            for row, column in np.argwhere(counts):
                colour = "white" if shares[row, column] > _DARK else "black"
                axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
        with written_whole(path) as file:
            figure.savefig(file, format="png")
