"""Classifies handwritten digits without seeing them: `python -m examples.models.mnist_mlp.run --samples 10`."""

from pathlib import Path

from examples.models.data import mnist
from examples.models.example import Example, main

EXAMPLE = Example(Path(__file__).parent, mnist.load)

if __name__ == "__main__":
    main(EXAMPLE)
