"""The provenance headers of every inference answer."""

from __future__ import annotations

from lattice.gateway.chat.service import Ticket
from lattice.gateway.http.exchange import Exchange


def work_headers(ticket: Ticket, mode: bytes) -> list[tuple[bytes, bytes]]:
    """Which machine, under which sealing mode, as which work, with which enforced output ceiling."""
    return [
        (b"x-lattice-runtime", ticket.work.runtime_id.encode()),
        (b"x-lattice-sealing", mode),
        (b"x-lattice-work", ticket.work.work_id.encode()),
        (b"x-lattice-max-output-tokens", b"%d" % ticket.envelope.parsed.max_output_tokens),
    ]


def note_gateway_time(exchange: Exchange, ticket: Ticket) -> None:
    """`x-lattice-gateway-ms`: time so far, less the time that the work was out at the runtime."""
    milliseconds = max(0.0, exchange.elapsed() - ticket.work.waited) * 1000
    exchange.response_headers.append((b"x-lattice-gateway-ms", b"%.2f" % milliseconds))
