"""The data of the examples: each set comes out of a public package when asked for. Only a few digits are committed."""
