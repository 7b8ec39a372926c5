"""Small graphs and sessions for the packing tests."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lattice.fhe.blinding import Blinding
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.compiler.graph import Graph, Node, Real
from lattice.fhe.compiler.operations import Dense, Square
from lattice.fhe.hal import backend
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.modulus import Residues

SECRET = bytes(range(32))


def linear(weight: Real, bias: Real) -> Graph:
    """One dense layer."""
    layer = Dense(np.atleast_2d(weight), np.atleast_1d(bias))
    return Graph("x", (layer.weight.shape[1],), (Node("y", layer, ("x",)),), "y")


def random_linear(features: int, outputs: int, seed: int = 0) -> tuple[Graph, Real, Real]:
    """A layer with calibrated ranges of very different units, and results of about one."""
    rng = np.random.default_rng(seed)
    half = np.exp2(rng.integers(-4, 5, features)) * rng.uniform(0.6, 1.0, features)
    middle = half * rng.normal(size=features)
    weight = rng.normal(size=(outputs, features)) / half / np.sqrt(features)
    return linear(weight, rng.normal(size=outputs) - weight @ middle), middle - half, middle + half


def network(widths: tuple[int, ...], seed: int = 0) -> Graph:
    """Dense layers with squares between."""
    rng = np.random.default_rng(seed)
    nodes: list[Node] = []
    last = "x"
    for number, (columns, rows) in enumerate(pairwise(widths)):
        if number:
            nodes.append(Node(f"square{number}", Square(), (last,)))
            last = nodes[-1].name
        layer = Dense(rng.normal(size=(rows, columns)) / np.sqrt(columns), rng.normal(size=rows) / 4)
        nodes.append(Node(f"dense{number}", layer, (last,)))
        last = nodes[-1].name
    return Graph("x", (widths[0],), tuple(nodes), last)


def request(name: bytes = b"request") -> Blinding:
    """A blinding whose seed depends on the name."""
    return Blinding(SECRET, name)


def raw_coefficients(secret: SecretKey, ciphertext: Ciphertext) -> Residues:
    """The decryption modulo q, in coefficients."""
    moduli = secret.params.q_moduli(ciphertext.level)
    return backend().intt(Decryptor(secret).decrypt(ciphertext).poly, moduli, secret.params.n)
