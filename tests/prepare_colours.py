"""Prepare a small data set of tensorflow-datasets: `prepare_colours.py PICTURES PLACE`."""

import sys
from pathlib import Path

import tensorflow_datasets as tfds

PICTURES, PLACE = map(Path, sys.argv[1:])
NAMES = ("red", "green", "blue")  # not in the order of the alphabet


class Colours(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=NAMES)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(range(8)),
            "test": self._generate_examples(range(8, 12)),
            "unlabelled": ((name, {"image": PICTURES / name / "0.png", "label": -1}) for name in NAMES),
        }

    def _generate_examples(self, numbers):
        for name in NAMES:
            for number in numbers:
                yield f"{name}/{number}", {"image": PICTURES / name / f"{number}.png", "label": name}


Colours(data_dir=PLACE).download_and_prepare()
