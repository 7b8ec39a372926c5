"""Trains Orion's LeNet, of 1.7 M parameters, in some minutes: `python -m examples.models.mnist_lenet.train`.

Its weights are rounded to eight bits before accuracy is measured, so that 1.5 MB can be committed instead of 6.8.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from examples.models.compact import Rounded, pack, round_rows
from examples.models.data import mnist
from examples.models.data.packages import CACHE
from examples.models.onnx_file import Square
from examples.models.training import Recipe, save, train
from torch import nn

RECIPE = Recipe(epochs=6, rate=3e-3, decay=1e-2, shift=1)


def network() -> nn.Sequential:
    """The layers of Orion's LeNet example."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 5, stride=2, padding=2),
            bn1=nn.BatchNorm2d(32),
            act1=Square(),
            conv2=nn.Conv2d(32, 64, 5, stride=2, padding=2),
            bn2=nn.BatchNorm2d(64),
            act2=Square(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(3136, 512),
            bn3=nn.BatchNorm1d(512),
            act3=Square(),
            fc2=nn.Linear(512, 10),
        )
    )


def round_weights(net: nn.Sequential) -> dict[str, Rounded]:
    """Round every matrix in place."""
    rounded = {}
    for name, module in net.named_children():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            rounded[f"{name}.weight"] = round_rows(module.weight.detach().numpy())
            module.weight.data = torch.from_numpy(rounded[f"{name}.weight"].values)
    return rounded


if __name__ == "__main__":
    folder, model = Path(__file__).parent, CACHE / "mnist_lenet.onnx"
    net = train(network, mnist.load(), RECIPE)
    rounded = round_weights(net)
    save(net, mnist.load(), folder, RECIPE, model)
    pack(model, rounded, folder / "model.npz")
