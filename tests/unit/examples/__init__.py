"""The examples' own helpers and the files that they commit."""
