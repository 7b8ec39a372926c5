"""The few values on which a gateway, a daemon and a client must agree before any of them is configured."""

from __future__ import annotations

GATEWAY_PORT = 8787
GATEWAY_URL = f"http://127.0.0.1:{GATEWAY_PORT}"
