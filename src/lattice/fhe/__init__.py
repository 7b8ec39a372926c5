"""Computing on encrypted numbers: RNS-CKKS (Cheon, Kim, Kim, Song, eprint 2016/421; RNS form: eprint 2018/931).

Layers, each of which imports only those to its left: `ring` → `ckks` → `hal` → `keys`, `serialise` → `circuits`.
`keys` is the only package that sees secrets. Import the module you need (`lattice.fhe.ckks.parameters`, …).
"""
