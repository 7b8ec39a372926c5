"""Trains a logistic regression on 30 measurements of a tumour: `python -m examples.models.breast_cancer.train`."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from examples.models.data import breast_cancer
from examples.models.onnx_file import Standardise
from examples.models.training import save
from sklearn.linear_model import LogisticRegression
from torch import nn


def pipeline() -> LogisticRegression:
    """What scikit-learn is asked for; the data are standardised before."""
    return LogisticRegression(C=0.05, max_iter=1000)


def network() -> nn.Sequential:
    """Standardisation, the weights that scikit-learn found."""
    data = breast_cancer.load()
    scale = Standardise(data.train)
    fitted = pipeline().fit(scale(torch.from_numpy(data.train)).numpy(), data.train_labels)
    linear = nn.Linear(data.train.shape[1], 1)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(fitted.coef_.astype(np.float32)))
        linear.bias.copy_(torch.from_numpy(fitted.intercept_.astype(np.float32)))
    return nn.Sequential(OrderedDict(scale=scale, linear=linear))


if __name__ == "__main__":
    save(network(), breast_cancer.load(), Path(__file__).parent, None, probability=True)
