"""A compiled model as one file: client part, report, program, weights; hashed, and signed by whoever publishes it.

`container` is the layout, `signing` the signature, and one module for each section that is more than bytes: `client`,
`tensors`. `files` puts them together. Reading runs no code, allocates no more than the file has bytes (plus what
`client` states), and answers anything odd with `artefact_invalid` or `artefact_untrusted`.
"""

from lattice.fhe.artefact.client import ClientView
from lattice.fhe.artefact.files import Inspection, client_bytes, client_view, inspect, load, save
from lattice.fhe.artefact.signing import Signer

__all__ = ["ClientView", "Inspection", "Signer", "client_bytes", "client_view", "inspect", "load", "save"]
