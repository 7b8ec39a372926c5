"""The gateway's half of the relay: what is running where, and the daemons' four routes."""
