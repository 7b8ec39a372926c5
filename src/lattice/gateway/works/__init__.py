"""Work: the rows that say what runs where, under which attempt, and how it ended."""

from lattice.gateway.works.records import Admission, Admitted, Ending, Settled, Settlement
from lattice.gateway.works.rows import WorkRow, get_work, lease, renew, requeue

__all__ = [
    "Admission",
    "Admitted",
    "Ending",
    "Settled",
    "Settlement",
    "WorkRow",
    "get_work",
    "lease",
    "renew",
    "requeue",
]
