"""Trains the small CNN of the paper LoLA: `python -m examples.models.mnist_lola.train` (2 minutes).

Low Latency Privacy Preserving Inference, Brutzkus, Elisha, Gilad-Bachrach, 2019 (arXiv 1812.10659).
"""

from collections import OrderedDict
from pathlib import Path

from examples.models.data import mnist
from examples.models.onnx_file import Square
from examples.models.training import Recipe, save, train
from torch import nn

RECIPE = Recipe(epochs=12, rate=3e-3, decay=1e-2, shift=1)


def network() -> nn.Sequential:
    """Five maps of 13 × 13, then 845-100-10."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 5, 5, stride=2, padding=1),
            bn1=nn.BatchNorm2d(5),
            act1=Square(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(845, 100),
            bn2=nn.BatchNorm1d(100),
            act2=Square(),
            fc2=nn.Linear(100, 10),
        )
    )


if __name__ == "__main__":
    save(train(network, mnist.load(), RECIPE), mnist.load(), Path(__file__).parent, RECIPE)
