"""The wire form of everything that travels: versioned, bounded, checksummed, safe on hostile bytes.

`bits` packs residues, `frame` is the container, and one module for each kind of thing stands on them. The layout is
private to nobody: it is written down in the modules, and vectors are in `spec/vectors/fhe/`.
"""
