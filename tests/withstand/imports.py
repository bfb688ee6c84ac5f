"""What commands import, imported before they are forked; nothing is computed, as threads do not survive a fork."""

import importlib
from contextlib import suppress

from convert.pipeline.frameworks import import_frameworks

MODULES = (
    "convert.cli.program", "convert.finetune.network", "convert.finetune.train", "convert.pipeline.batch",
    "convert.pipeline.finetune", "convert.pipeline.matrix", "convert.pipeline.packages", "convert.pipeline.page",
    "convert.pipeline.training", "export.cards.write", "export.publish.destinations", "flax.linen", "keras",
    "onnxruntime", "openvino", "tf2onnx", "validation.formats.check", "validation.gate", "validation.parity.check",
    "withstand.trials",
)  # fmt: skip

import_frameworks()
for _name in MODULES:
    with suppress(ImportError):  # of a format whose libraries are not installed
        importlib.import_module(_name)
