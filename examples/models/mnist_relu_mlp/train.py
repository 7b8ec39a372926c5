"""Trains the perceptron of `mnist_mlp` with ReLU, which the compiler fits by polynomials.

`python -m examples.models.mnist_relu_mlp.train` (1 minute).
"""

from collections import OrderedDict
from pathlib import Path

from examples.models.data import mnist
from examples.models.training import Recipe, save, train
from torch import nn

RECIPE = Recipe(epochs=12, rate=3e-3, decay=1e-2, shift=1)


def network() -> nn.Sequential:
    """The same layers as `mnist_mlp`; batch normalisation keeps what ReLU sees in a small range."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(784, 128),
            bn1=nn.BatchNorm1d(128),
            act1=nn.ReLU(),
            fc2=nn.Linear(128, 128),
            bn2=nn.BatchNorm1d(128),
            act2=nn.ReLU(),
            fc3=nn.Linear(128, 10),
        )
    )


if __name__ == "__main__":
    save(train(network, mnist.load(), RECIPE), mnist.load(), Path(__file__).parent, RECIPE)
