"""Runtimes: the machines that run work, personal and hosted, and how they are paired."""
