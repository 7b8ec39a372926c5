"""Credit scoring: 4,454 applications, good or bad, from Debian's `r-cran-modeldata` (MIT)."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from examples.models.data.dataset import Dataset, split
from examples.models.data.packages import APT, package
from examples.models.data.r_data import read_frame
from numpy.typing import NDArray

NUMBERS = ("Seniority", "Time", "Age", "Expenses", "Income", "Assets", "Debt", "Amount", "Price")
LONG_TAILED = ("Income", "Assets", "Debt", "Amount", "Price")
CHOICES = {
    "Home": ("ignore", "other", "owner", "parents", "priv", "rent"),
    "Marital": ("divorced", "married", "separated", "single", "widow"),
    "Records": ("no", "yes"),
    "Job": ("fixed", "freelance", "others", "partime"),
}


@cache
def load() -> Dataset:
    """26 features: nine numbers, money as log(1 + x), and 17 choices as 0 or 1.

    A missing number becomes the median, a missing choice none.
    """
    archive = package("r-cran-modeldata", (*APT, "r-cran-modeldata"), "r-cran-modeldata_*.deb", None)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(("dpkg", "-x", str(archive), folder), check=True)
        base = Path(folder, "usr/lib/R/site-library/modeldata/data/Rdata")
        frame = read_frame(base, "credit_data")
    columns = [_number(frame[name], name in LONG_TAILED) for name in NUMBERS]
    columns += [frame[name] == choice for name, choices in CHOICES.items() for choice in choices]
    good = (frame["Status"] == "good").astype(np.int64)
    source = "Debian r-cran-modeldata, credit_data (MIT)"
    return split("credit", source, np.stack(columns, axis=1).astype(np.float64), good, ("bad", "good"), seed=4)


def _number(values: NDArray[np.float64], long_tailed: bool) -> NDArray[np.float64]:
    filled = np.where(np.isnan(values), np.nanmedian(values), values)
    return np.log1p(filled) if long_tailed else filled
