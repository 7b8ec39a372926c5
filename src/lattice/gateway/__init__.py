"""The gateway: HTTP API, identity, admission, relay, ledger and store of the control plane."""
