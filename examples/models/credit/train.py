"""Trains a perceptron 26-32-16-1 with tanh that scores credit: `python -m examples.models.credit.train` (seconds)."""

from collections import OrderedDict
from pathlib import Path

from examples.models.data import credit
from examples.models.onnx_file import Standardise
from examples.models.training import Recipe, save, train
from torch import nn

RECIPE = Recipe(epochs=40, rate=3e-3, batch=64, decay=5e-2)


def network() -> nn.Sequential:
    """The compiler fits tanh by polynomials."""
    return nn.Sequential(
        OrderedDict(
            scale=Standardise(credit.load().train),
            fc1=nn.Linear(26, 32),
            act1=nn.Tanh(),
            drop=nn.Dropout(0.2),
            fc2=nn.Linear(32, 16),
            act2=nn.Tanh(),
            fc3=nn.Linear(16, 1),
        )
    )


if __name__ == "__main__":
    save(train(network, credit.load(), RECIPE), credit.load(), Path(__file__).parent, RECIPE, probability=True)
