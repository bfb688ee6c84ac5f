"""Citations of the papers behind the weights, and accuracies that others measured, each with its source."""

from dataclasses import dataclass

from models.catalog import GSAM_PAPER, MIXER_PAPER, SAM_PAPER, VIT_SAM_PAPER

CITATIONS: dict[str, str] = {
    MIXER_PAPER: """\
@article{tolstikhin2021mixer,
  title = {{MLP-Mixer}: An all-{MLP} Architecture for Vision},
  author = {Tolstikhin, Ilya and Houlsby, Neil and Kolesnikov, Alexander and Beyer, Lucas and Zhai, Xiaohua and
    Unterthiner, Thomas and Yung, Jessica and Steiner, Andreas and Keysers, Daniel and Uszkoreit, Jakob and
    Lucic, Mario and Dosovitskiy, Alexey},
  journal = {arXiv preprint arXiv:2105.01601},
  year = {2021}
}
""",
    SAM_PAPER: """\
@article{foret2020sam,
  title = {Sharpness-Aware Minimization for Efficiently Improving Generalization},
  author = {Foret, Pierre and Kleiner, Ariel and Mobahi, Hossein and Neyshabur, Behnam},
  journal = {arXiv preprint arXiv:2010.01412},
  year = {2020}
}
""",
    GSAM_PAPER: """\
@article{zhuang2022surrogate,
  title = {Surrogate Gap Minimization Improves Sharpness-Aware Training},
  author = {Zhuang, Juntang and Gong, Boqing and Yuan, Liangzhe and Cui, Yin and Adam, Hartwig and Dvornek, Nicha and
    Tatikonda, Sekhar and Duncan, James and Liu, Ting},
  journal = {arXiv preprint arXiv:2203.08065},
  year = {2022}
}
""",
    VIT_SAM_PAPER: """\
@article{chen2021outperform,
  title = {When Vision Transformers Outperform {ResNets} without Pre-training or Strong Data Augmentations},
  author = {Chen, Xiangning and Hsieh, Cho-Jui and Gong, Boqing},
  journal = {arXiv preprint arXiv:2106.01548},
  year = {2021}
}
""",
}
"""One BibTeX entry per paper, keyed by its arXiv address."""


@dataclass(frozen=True)
class CitedAccuracy:
    """A published figure, not measured here: `top1` in per cent on the validation set of ImageNet-1k."""

    top1: float
    source: str
    url: str


_KECAM = "https://github.com/leondgarse/keras_cv_attention_models/tree/main/keras_cv_attention_models/mlp_family"
VERSION_1_PAGE = "https://github.com/tensorflow/tfhub.dev/blob/master/assets/docs/sayakpaul/collections/mlp-mixer/1.md"
"""The collection's page as published in 2021, in TensorFlow Hub's own repository."""


def _paper(top1: float) -> CitedAccuracy:
    return CitedAccuracy(top1, "the paper", MIXER_PAPER)


def _kecam(top1: float) -> CitedAccuracy:
    return CitedAccuracy(top1, "the table of keras_cv_attention_models", _KECAM)


def _version_1(top1: float) -> CitedAccuracy:
    return CitedAccuracy(top1, "version 1 of this collection, whose evidence is no longer available", VERSION_1_PAGE)


ACCURACIES: dict[str, tuple[CitedAccuracy, ...]] = {
    "b16_sam": (_kecam(77.36), _version_1(75.58)),
    "b32_sam": (_kecam(72.47),),
    "b16_i1k": (_paper(76.44), _version_1(75.31)),
    "l16_i1k": (_paper(71.76),),
}
"""By checkpoint, with its head; none is known for the others."""
