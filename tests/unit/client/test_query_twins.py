"""`QueryClient` and `AsyncQueryClient` have the same methods with the same arguments."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from lattice.client.encrypted.aio import AsyncQueryClient
from lattice.client.encrypted.databases import AsyncDatabases, Databases
from lattice.client.encrypted.keys import AsyncDeviceKeys, DeviceKeys
from lattice.client.encrypted.query import QueryClient


def public(cls: type[Any]) -> dict[str, inspect.Signature]:
    """Names and signatures without the types, which differ by client."""
    return {
        name: inspect.Signature(
            [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(member).parameters.values()]
        )
        for name, member in vars(cls).items()
        if inspect.isfunction(member) and (not name.startswith("_") or name == "__init__")
    }


@pytest.mark.parametrize(
    ("one", "other"), [(QueryClient, AsyncQueryClient), (DeviceKeys, AsyncDeviceKeys), (Databases, AsyncDatabases)]
)
def test_twins(one: type[Any], other: type[Any]) -> None:
    assert public(one) == public(other)
