"""Parameters on the wire. Reading them checks every prime and the security bound again."""

from __future__ import annotations

import msgspec

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import MAX_PRIMES, Parameters, ParameterSet, refuse_insecure
from lattice.fhe.serialise.frame import Kind, expect_body, invalid, read_frame, read_scale, write_frame, write_scale


class ParametersHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything; the body is empty."""

    log_n: int
    base: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    special: tuple[int, ...]
    scale: str
    secret: str
    error_eta: int
    security: str


def header_of(params: ParameterSet) -> ParametersHeader:
    """The description of secure parameters; test parameters are refused."""
    refuse_insecure(params)
    return ParametersHeader(
        params.log_n,
        params.base,
        params.levels,
        params.special,
        write_scale(params.scale),
        params.secret,
        params.error_eta,
        params.security.value,
    )


def from_header(header: ParametersHeader) -> Parameters:
    """Parameters, with every check of their constructor. Insecure ones stay `parameters_insecure`."""
    if len(header.levels) > MAX_PRIMES or sum(map(len, header.levels)) > MAX_PRIMES or len(header.base) > MAX_PRIMES:
        raise invalid("There are too many primes.")
    try:
        return Parameters(
            header.log_n,
            header.base,
            header.levels,
            header.special,
            read_scale(header.scale),
            header.secret,
            header.error_eta,
            header.security,
        )
    except ValueError:
        raise invalid("The security level is unknown.") from None
    except LatticeError as error:
        if error.code == "invalid_parameters":
            raise invalid(error.message) from None
        raise


def encode_parameters(params: ParameterSet) -> bytes:
    """To bytes."""
    return write_frame(Kind.PARAMETERS, header_of(params))


def decode_parameters(data: bytes | memoryview) -> Parameters:
    """From bytes."""
    header, body = read_frame(data, Kind.PARAMETERS, ParametersHeader)
    expect_body(body, 0)
    return from_header(header)
