"""The control plane: HTTP API, identity, admission, routing, relay, ledger and their store."""
