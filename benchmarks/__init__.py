"""Measurements against peers and floors: `make bench`. Ratios in one run, JSON out."""
