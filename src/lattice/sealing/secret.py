"""A base for objects that hold keys or plaintext: they neither print nor pickle what they hold."""

from __future__ import annotations

from typing import Any, NoReturn, SupportsIndex


class Secret:
    """Prints as its class name alone and refuses pickle and copy, so that secrets can't leak through logs or queues."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret and cannot be pickled or copied")

    def __getstate__(self) -> Any:
        raise TypeError(f"{type(self).__name__} holds a secret and cannot be pickled or copied")
