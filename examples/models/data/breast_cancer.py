"""Breast cancer Wisconsin (diagnostic): 569 tumours, 30 measurements each, inside scikit-learn."""

from __future__ import annotations

from functools import cache

from examples.models.data.dataset import Dataset, split


@cache
def load() -> Dataset:
    """Raw measurements, from 0.0005 to 4254: the model standardises them itself."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    source = "scikit-learn load_breast_cancer (UCI, CC BY 4.0)"
    return split("breast cancer", source, found.data, found.target, ("malignant", "benign"), seed=4)
