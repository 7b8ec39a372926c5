"""Whether the native module is installed. Wheels have it; a source tree that nobody built runs on numpy alone.

For parts below `hal`, where a backend is chosen: `if HAS_NATIVE: native.…`.
"""

from __future__ import annotations

try:
    from lattice.fhe import _native as native

    HAS_NATIVE = True
except ImportError:
    native = None  # type: ignore[assignment]
    HAS_NATIVE = False

__all__ = ["HAS_NATIVE", "native"]
