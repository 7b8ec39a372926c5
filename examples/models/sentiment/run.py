"""Says whether a text is positive; the client embeds it, the server sees neither text nor embedding: `python -m examples.models.sentiment.run --samples 10`."""

from pathlib import Path

from examples.models.data import sentiment
from examples.models.example import Example, main

EXAMPLE = Example(Path(__file__).parent, sentiment.load)

if __name__ == "__main__":
    main(EXAMPLE)
