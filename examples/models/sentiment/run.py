"""Says whether a text is positive: `python -m examples.models.sentiment.run --samples 10`.

The client embeds the text and encrypts the embedding; the server sees neither.
"""

from pathlib import Path

from examples.models.data import sentiment
from examples.models.example import Example, main

EXAMPLE = Example(Path(__file__).parent, sentiment.load)

if __name__ == "__main__":
    main(EXAMPLE)
