"""Packing: where every entry of every tensor lies in the slots, and the rotations that layers then need.

`pack(graph, slots)` gives a circuit for one sample; `Packer` keeps what several prices of keys share. `layout` says
where things lie, `geometry` cuts images into planes, `candidates` and `client` propose schemes for a layer, `linear`
proves and builds them, `bsgs` splits their rotations, `planner` chooses, `lower` writes the steps, `counts` counts.
"""

from lattice.fhe.compiler.packing.counts import Counts, layer_counts, total
from lattice.fhe.compiler.packing.lower import Packer, pack
from lattice.fhe.compiler.packing.planner import Goal, PackingOptions

__all__ = ["Counts", "Goal", "Packer", "PackingOptions", "layer_counts", "pack", "total"]
