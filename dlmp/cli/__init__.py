"""The command line.

Exit codes: 0 done, 1 the audit found a fault, 2 bad input, 3 infeasible, 4 not converged, 5 the service refused or did
not answer, 6 feeders of a fleet did not converge, 130 a fleet was stopped.  Results go to standard output and to files,
progress and errors to standard error.
"""

from dlmp.cli.program import main

__all__ = ["main"]
