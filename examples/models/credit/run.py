"""Scores credit applications without seeing them: `python -m examples.models.credit.run --samples 10`."""

from pathlib import Path

from examples.models.data import credit
from examples.models.example import Example, main

EXAMPLE = Example(Path(__file__).parent, credit.load)

if __name__ == "__main__":
    main(EXAMPLE)
