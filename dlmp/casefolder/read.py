"""A folder to a market case, or to one error with everything that is wrong in all its files."""

from pathlib import Path

import numpy as np

from dlmp.casefolder.blocks import read_blocks
from dlmp.casefolder.limits import apply_limits
from dlmp.casefolder.offers import read_offers
from dlmp.casefolder.penalties import read_penalties
from dlmp.casefolder.reactive import read_reactive_bids
from dlmp.casefolder.rows import Places, numbered
from dlmp.casefolder.series import (
    available_generation,
    dispatched_elements,
    element_powers,
    loads,
    read_load_profile,
    read_substation,
    within_shares,
)
from dlmp.casefolder.services import read_requirements, read_service_offers
from dlmp.casefolder.settings import Settings, in_case_toml, read_settings
from dlmp.casefolder.stores import read_stores
from dlmp.errors import InputError, Problem, Problems
from dlmp.market import MarketCase
from dlmp.network.model import Network
from dlmp.network.sources import read_network, table_folder
from dlmp.network.tables import names_in_tables


def read_case(folder: Path | str) -> MarketCase:
    """Read the market case of a folder.

    Parameters
    ----------
    folder
        Holds ``case.toml``, ``import_prices.csv`` and, as needed, ``load_profile.csv``, ``resources.csv``,
        ``availability.csv``, ``bids.csv``, ``blocks.csv``, ``reactive_bids.csv``, ``stores.csv``,
        ``store_profile.csv``, ``service_offers.csv``, ``requirements.csv``, ``zones.csv``, ``limits.csv``,
        ``penalties.csv`` and the files of the network.

    Raises
    ------
    InputError
        With every problem of every file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError([Problem("case", "folder", str(folder), "is no folder")])
    problems = Problems()
    settings = read_settings(folder, problems)
    network = _read_network(folder, settings, problems)
    places = _places(folder, settings, network)
    network = apply_limits(folder, network, places, problems)
    substation = read_substation(folder, settings, problems)
    profile = read_load_profile(folder, network, places, settings.intervals, problems)
    generation = {}
    if network is not None and settings.source is not None and settings.horizon is not None:
        p_kw, q_kvar = element_powers(network, settings.source, settings.horizon, profile)
        generation = available_generation(network, p_kw)
    offers = read_offers(folder, network, places, settings.intervals, generation, problems)
    resources, bids = offers.resources, offers.bids
    hours = np.nan if settings.horizon is None else settings.horizon.interval_hours
    stores = read_stores(folder, resources, bids, offers.names, settings.intervals, hours, problems)
    reactive = read_reactive_bids(folder, resources, offers.names, settings.intervals, problems)
    blocks = read_blocks(folder, resources, stores, offers.names, settings.intervals, problems)
    service_offers = read_service_offers(folder, resources, offers.names, settings.intervals, hours, problems)
    requirements = read_requirements(folder, network, places, settings.intervals, problems)
    penalties = read_penalties(folder, problems)
    if network is not None:
        dispatched = dispatched_elements(network, resources, problems)
    if problems.found or network is None or settings.horizon is None:
        raise InputError(in_case_toml(problem) for problem in problems.found)
    load_p_kw, load_q_kvar = loads(network, p_kw, q_kvar, ~dispatched, profile)
    substation = within_shares(substation, settings, load_p_kw, problems)
    if problems.found:
        raise InputError(in_case_toml(problem) for problem in problems.found)
    return MarketCase(
        settings.name,
        network,
        settings.horizon,
        substation,
        load_p_kw,
        load_q_kvar,
        resources,
        bids,
        stores=stores,
        reactive_bids=reactive,
        blocks=blocks,
        service_offers=service_offers,
        requirements=requirements,
        penalties=penalties,
    )


def _read_network(folder: Path, settings: Settings, problems: Problems) -> Network | None:
    if settings.source is None:
        return None
    try:
        return read_network(
            settings.source,
            folder,
            options=settings.options,
            v_min_pu=settings.v_min_pu,
            v_max_pu=settings.v_max_pu,
            source_v_pu=settings.source_v_pu,
        )
    except InputError as error:
        problems.found += error.problems
        return None


def _places(folder: Path, settings: Settings, network: Network | None) -> Places:
    """Names that the tables may refer to: the network's, else those of the tables that failed to become one."""
    if network is not None:
        return Places(network.bus_number, network.branch_number)
    tables = table_folder(settings.source or "", folder)
    if tables is None:
        return Places(None, None)
    names = names_in_tables(tables)
    return Places(numbered(names.buses), numbered(names.branches))
