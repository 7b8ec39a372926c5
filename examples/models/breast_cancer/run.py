"""Says whether a tumour is benign, without seeing it: `python -m examples.models.breast_cancer.run --samples 10`."""

from pathlib import Path

from examples.models.data import breast_cancer
from examples.models.example import Example, main

EXAMPLE = Example(Path(__file__).parent, breast_cancer.load)

if __name__ == "__main__":
    main(EXAMPLE)
