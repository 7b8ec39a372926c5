"""Engines: what answers on this machine. `lattice.runtime.engines.choice` picks one from the settings."""
