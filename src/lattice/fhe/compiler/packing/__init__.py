"""Packing: where every entry of every tensor lies in the slots, and the rotations that layers then need.

`pack(graph, slots)` gives a circuit for one sample. `layout` says where things lie, `geometry` cuts images into planes,
`candidates` and `client` propose schemes for a layer, `linear` proves and builds them, `bsgs` splits their rotations,
`planner` chooses, `lower` writes the steps, `counts` counts.
"""

from lattice.fhe.compiler.packing.counts import Counts, layer_counts, total
from lattice.fhe.compiler.packing.lower import pack
from lattice.fhe.compiler.packing.planner import Goal, PackingOptions

__all__ = ["Counts", "Goal", "PackingOptions", "layer_counts", "pack", "total"]
