"""Market cases as folders of tables: ``case.toml`` and CSV files, read whole or not at all.

Each file is described where it is read: ``case.toml`` in `settings`, ``import_prices.csv`` and
``load_profile.csv`` in `series`, ``resources.csv``, ``availability.csv`` and ``bids.csv`` in `offers`,
``stores.csv`` and ``store_profile.csv`` in `stores`, ``blocks.csv`` in `blocks`,
``limits.csv`` in `limits`, ``nodes.csv`` and ``lines.csv`` in `dlmp.network.tables`.
"""

from dlmp.casefolder.read import read_case

__all__ = ["read_case"]
