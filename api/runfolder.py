"""What the folder of one run holds, for the worker and for its child process."""

CASE, SETTINGS, RESULTS, SUMMARY = "case", "settings.json", "results", "summary.json"
PREFIX = "dlmp-run-"
"""What the name of a folder that a worker makes begins with."""
SETTLING = "settling/"
METERED, REAL_TIME, REAL_TIME_SETTINGS = (SETTLING + name for name in ("metered.csv", "real_time", "real_time.json"))
"""What stands in the case of a run that settles with what was metered."""
REAL_TIME_PRICES = "real_time_prices"
"""Name of the table of the real-time prices that deviations were settled at."""
PRICE_SHARES, CALLS = "price_shares", "calls"
"""Names of the tables of what makes each price, and of whom the calls in it name."""
PRICE_COLUMNS = {"lmp_usd_per_mwh": "price_usd_per_mwh", "lmp_q_usd_per_mvarh": "q_price_usd_per_mvarh"}
"""Columns of results that go out under other names."""
DIAGRAM_NODES, DIAGRAM_BRANCHES = "diagram_nodes", "diagram_branches"
"""Names of the tables of where nodes and branches are drawn."""
