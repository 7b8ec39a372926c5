"""Trains a torch network from a fixed seed and writes it beside a record of what it can do: the `train` scripts' core.

Squares grow fast: a value of 10 is 10,000 two layers on. Batch normalisation in front of each square and weight decay
keep every value small; the record says how small, layer by layer.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from examples.models.data.dataset import Dataset
from examples.models.onnx_file import write
from torch import nn


class Recipe(NamedTuple):
    """How to train."""

    epochs: int
    rate: float = 2e-3
    batch: int = 128
    decay: float = 1e-4
    shift: int = 0
    """Images are moved by up to so many pixels, at random."""
    smoothing: float = 0.1
    """Of the labels: without it the logits, and with them every value before, go on growing."""
    seed: int = 4


def train(make: Callable[[], nn.Sequential], data: Dataset, recipe: Recipe) -> nn.Sequential:
    """A trained network; one output means a logit of label 1, more are one logit for each label."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    net = make()
    x, y = torch.from_numpy(data.train), torch.from_numpy(data.train_labels)
    steps = recipe.epochs * (len(x) // recipe.batch)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=recipe.rate, total_steps=steps)
    for epoch in range(recipe.epochs):
        net.train()
        for rows in torch.randperm(len(x))[: len(x) // recipe.batch * recipe.batch].split(recipe.batch):
            loss = _loss(net(_shifted(x[rows], recipe.shift)), y[rows], recipe.smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: accuracy {accuracy(net, data):.4f}", flush=True)
    return net.eval()


def _loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    if logits.shape[1] == 1:
        target = labels.float() * (1 - smoothing) + smoothing / 2
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target)
    return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def _shifted(images: torch.Tensor, shift: int) -> torch.Tensor:
    """All of a batch by one step: cheap, and enough. The borders of MNIST are empty, so rolling does no harm."""
    if not shift:
        return images
    down, right = torch.randint(-shift, shift + 1, (2,)).tolist()
    return images.roll((down, right), dims=(2, 3))


def logits(net: nn.Module, samples: np.ndarray) -> np.ndarray:
    """Without gradients, in batches."""
    net.eval()
    with torch.no_grad():
        return np.concatenate([net(part).numpy() for part in torch.from_numpy(samples).split(1000)])


def accuracy(net: nn.Module, data: Dataset) -> float:
    """On what was held out."""
    return float((labels(logits(net, data.test)) == data.test_labels).mean())


def labels(scores: np.ndarray) -> np.ndarray:
    """The label that the scores say."""
    return (scores[:, 0] > 0).astype(np.int64) if scores.shape[1] == 1 else scores.argmax(axis=1)


def ranges(net: nn.Sequential, data: Dataset) -> dict[str, list[float]]:
    """Smallest and largest value after every layer, over all samples."""
    found: dict[str, list[float]] = {}
    with torch.no_grad():
        for part in torch.from_numpy(np.concatenate([data.train, data.test])).split(5000):
            value = part
            for name, module in net.named_children():
                value = module(value)
                low, high = found.get(name, [np.inf, -np.inf])
                found[name] = [min(low, float(value.min())), max(high, float(value.max()))]
    return {name: [round(low, 3), round(high, 3)] for name, (low, high) in found.items()}


def save(
    net: nn.Sequential,
    data: Dataset,
    folder: Path,
    recipe: Recipe | None,
    model: Path | None = None,
    probability: bool = False,
) -> None:
    """Write the model (to `folder/model.onnx` unless said) and `folder/model.json`.

    `probability` ends the model with a sigmoid, which the compiler leaves to the client.
    """
    path = model or folder / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    written = nn.Sequential(OrderedDict([*net.named_children(), ("sigmoid", nn.Sigmoid())])) if probability else net
    write(written, data.train.shape[1:], path)
    record: dict[str, Any] = {
        "model": folder.name,
        "onnx_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "onnx_bytes": path.stat().st_size,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "data": {"name": data.name, "source": data.source, "sha256": data.sha256},
        "train_samples": len(data.train),
        "test_samples": len(data.test),
        "accuracy": round(accuracy(net, data), 5),
        "recipe": recipe._asdict() if recipe else {},
        "command": f"python -m examples.models.{folder.name}.train",
        "torch": torch.__version__,
        "ranges": ranges(net, data),
    }
    (folder / "model.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{path}: {record['onnx_bytes']} bytes, accuracy {record['accuracy']:.4f}, ranges {record['ranges']}")
