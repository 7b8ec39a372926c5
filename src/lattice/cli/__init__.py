"""Command lines: `lattice` for apps and operators, `lattice-ctl` for the owner of a machine. Imports are lazy."""
