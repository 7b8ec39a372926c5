"""The data of the examples. Nothing is committed: each set comes out of a public package when asked for."""
