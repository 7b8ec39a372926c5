"""Unit tests of the SDK, against a gateway and a daemon that are played in memory and seal for real."""
