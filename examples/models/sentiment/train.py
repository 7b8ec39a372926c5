"""Trains a logistic regression on embedded texts: `python -m examples.models.sentiment.train` (2 minutes to embed)."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from examples.models.data import sentiment
from examples.models.training import save
from sklearn.linear_model import LogisticRegression
from torch import nn


def network() -> nn.Sequential:
    """The weights that scikit-learn found."""
    data = sentiment.load()
    fitted = LogisticRegression(C=4.0, max_iter=1000).fit(data.train, data.train_labels)
    linear = nn.Linear(data.train.shape[1], 1)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(fitted.coef_.astype(np.float32)))
        linear.bias.copy_(torch.from_numpy(fitted.intercept_.astype(np.float32)))
    return nn.Sequential(OrderedDict(linear=linear))


if __name__ == "__main__":
    save(network(), sentiment.load(), Path(__file__).parent, None, probability=True)
