"""Unit tests of the core, one file per module."""
