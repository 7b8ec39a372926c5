"""The daemon on the machine that computes: relay connection, engines, work keys, allow-list and a loopback API."""
