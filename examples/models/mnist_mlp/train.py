"""Trains the MNIST perceptron 784-128-128-10 with squares: `python -m examples.models.mnist_mlp.train` (2 minutes)."""

from collections import OrderedDict
from pathlib import Path

from examples.models.data import mnist
from examples.models.onnx_file import Square
from examples.models.training import Recipe, save, train
from torch import nn

RECIPE = Recipe(epochs=12, rate=3e-3, decay=1e-2, shift=1)


def network() -> nn.Sequential:
    """The layers of Orion's MLP example, so that both run the same model."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(784, 128),
            bn1=nn.BatchNorm1d(128),
            act1=Square(),
            fc2=nn.Linear(128, 128),
            bn2=nn.BatchNorm1d(128),
            act2=Square(),
            fc3=nn.Linear(128, 10),
        )
    )


if __name__ == "__main__":
    save(train(network, mnist.load(), RECIPE), mnist.load(), Path(__file__).parent, RECIPE)
