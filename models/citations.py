"""How to cite what the weights come from: one BibTeX entry a paper, by its address on arXiv."""

from models.catalog import MIXER_PAPER, SAM_PAPER, VIT_SAM_PAPER

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
    VIT_SAM_PAPER: """\
@article{chen2021outperform,
  title = {When Vision Transformers Outperform {ResNets} without Pre-training or Strong Data Augmentations},
  author = {Chen, Xiangning and Hsieh, Cho-Jui and Gong, Boqing},
  journal = {arXiv preprint arXiv:2106.01548},
  year = {2021}
}
""",
}
