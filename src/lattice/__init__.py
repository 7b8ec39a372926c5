"""One API for private AI compute, in which who may see the data is a routing constraint.

Nothing is imported until it is used, so that `import lattice` stays cheap; the public names load on first access.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "AsyncQueryClient": "lattice.client.encrypted.aio",
    "QueryClient": "lattice.client.encrypted.query",
    "AsyncComputeClient": "lattice.client.aio",
    "ComputeClient": "lattice.client.compute",
    "LatticeError": "lattice.core.errors",
    "ManagementClient": "lattice.client.management",
    "SealedTransport": "lattice.client.transport",
    "AsyncSealedTransport": "lattice.client.transport",
}

if TYPE_CHECKING:
    from lattice.client.aio import AsyncComputeClient
    from lattice.client.compute import ComputeClient
    from lattice.client.encrypted.aio import AsyncQueryClient
    from lattice.client.encrypted.query import QueryClient
    from lattice.client.management import ManagementClient
    from lattice.client.transport import AsyncSealedTransport, SealedTransport
    from lattice.core.errors import LatticeError

__all__ = [
    "AsyncComputeClient",
    "AsyncQueryClient",
    "AsyncSealedTransport",
    "ComputeClient",
    "LatticeError",
    "ManagementClient",
    "QueryClient",
    "SealedTransport",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lattice' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
