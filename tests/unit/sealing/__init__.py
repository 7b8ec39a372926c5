"""Unit tests of sealing, one file per module."""
