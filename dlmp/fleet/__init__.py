"""Many feeders at once: `clear_fleet` clears a folder of market cases, on this machine or on a Ray cluster.

`dlmp.fleet.feeders` finds the cases, `dlmp.fleet.batch` is what every worker does, `dlmp.fleet.processes` and
`dlmp.fleet.cluster` are the workers, `dlmp.fleet.run` sends batches to them and gathers what became of each feeder, and
`dlmp.fleet.results` says how that is told and kept.
"""

from dlmp.fleet.results import FeederResult
from dlmp.fleet.run import Progress, clear_fleet

__all__ = ["FeederResult", "Progress", "clear_fleet"]
