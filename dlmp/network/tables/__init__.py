"""Networks as plain tables in physical units: a folder with ``nodes.csv`` and ``lines.csv``.

``nodes.csv`` has one row per bus:

==================== ====================================================================================
bus                  name
base_kv              line-to-line base voltage [kV]
p_kw, q_kvar         fixed consumption; blank: 0
v_min_pu, v_max_pu   voltage band; blank: the caller's, else 0.9 and 1.1
is_source            1 where the upstream grid holds the voltage; blank: 0
source_v_pu,         voltage of a source; blank: the caller's magnitude, else 1; angle 0
source_angle_degree
g_us, b_us           shunt at the bus [uS]; blank: 0
x, y                 where it is on a map, in any unit of length; blank: not known
==================== ====================================================================================

``lines.csv`` has one row per branch:

==================== ====================================================================================
line                 name
from_bus, to_bus     its ends
r_ohm, x_ohm         series impedance
b_us                 charging [uS], half at each end; blank: 0
rate_kva or rate_a   limit of apparent power or of current; both blank: unlimited
kind                 ``line`` or ``transformer``; blank: ``line``, of equal base voltage at both ends
tap_ratio,           voltage from/to over base voltage from/to, and by how much from leads to;
shift_degree         blank: 1 and 0
==================== ====================================================================================

The ohms and siemens of a branch are at the base voltage of its to bus, behind the tap.  `rate_a` is in
the amperes of the from bus; where base voltages differ, the to bus's amperes are larger by their ratio.
A column without an end holds for both ends.  A branch whose ends differ has, in its place, those that
name one: ``g_from_us, b_from_us, g_to_us, b_to_us`` [uS] and ``rate_from_kva, rate_to_kva`` or
``rate_from_a, rate_to_a``, each in the amperes of its own bus.

An optional ``aliases.csv`` has further names (`alias`) of a `bus`.  Only the columns ``bus``, ``base_kv``,
``line``, ``from_bus``, ``to_bus``, ``r_ohm`` and ``x_ohm`` must be there.
"""

from dlmp.network.tables.read import TableNames, names_in_tables, read_tables
from dlmp.network.tables.write import write_tables

__all__ = ["TableNames", "names_in_tables", "read_tables", "write_tables"]
