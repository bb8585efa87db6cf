"""Market cases as folders of tables: ``case.toml`` and CSV files, read whole or not at all.

``docs`` aside, the modules are the reference: `settings` for ``case.toml``, `series` for
``import_prices.csv`` and ``load_profile.csv``, `offers` for ``resources.csv``, ``availability.csv`` and
``bids.csv``, `limits` for ``limits.csv``, `dlmp.network.tables` for ``nodes.csv`` and ``lines.csv``.
"""

from dlmp.casefolder.read import read_case
from dlmp.casefolder.write import write_case

__all__ = ["read_case", "write_case"]
