"""Where a network comes from: ``KIND:NAME`` to a `Network`, as the ``source`` of a market case.

The importers of pandapower, SimBench and OpenDSS bring programs that take long to load: they are loaded when a source
of theirs is read.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from dlmp.network.matpower import from_matpower
from dlmp.network.model import FloatArray, Network, UnbalancedNetwork
from dlmp.network.profiles import Intervals
from dlmp.network.sourceproblem import source_problem
from dlmp.network.tables import read_tables


@dataclass(frozen=True)
class Voltages:
    """What the caller says of voltages [pu]; None leaves it to the source."""

    v_min_pu: float | None
    v_max_pu: float | None
    source_v_pu: float | None

    def of(self, reader: Callable[..., Network], argument: object) -> Network:
        """Read `argument` with `reader` and these voltages."""
        return reader(argument, v_min_pu=self.v_min_pu, v_max_pu=self.v_max_pu, source_v_pu=self.source_v_pu)


Options = Mapping[str, object]
Reader = Callable[[str, Path, Options, Voltages], Network]
Profiles = Callable[[str, Network, Intervals], tuple[FloatArray, FloatArray] | None]


def read_network(
    source: str,
    folder: Path | str,
    *,
    options: Options | None = None,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    source_v_pu: float | None = None,
) -> Network:
    """Read the network that `source` names.

    Parameters
    ----------
    source
        ``pandapower:FUNCTION`` of ``pandapower.networks`` or ``pandapower:FILE.json``,
        ``simbench:CODE``, ``matpower:FILE.m``, ``tables:FOLDER`` or ``opendss:Master.dss``.
    folder
        What files and folders are relative to.
    options
        Keyword arguments of the pandapower function, or of `dlmp.network.opendss.from_opendss`.
    v_min_pu, v_max_pu, source_v_pu
        Voltage band and source voltage [pu]; see the importer of each kind.

    Raises
    ------
    InputError
        For an unknown source and for everything that is wrong in it.
    """
    kind, _, name = source.partition(":")
    if kind not in SOURCES or not name:
        raise source_problem("source", source, f"must be KIND:NAME with a kind of {', '.join(SOURCES)}")
    return SOURCES[kind].read(name, Path(folder), options or {}, Voltages(v_min_pu, v_max_pu, source_v_pu))


def network_profiles(source: str, network: Network, horizon: Intervals) -> tuple[FloatArray, FloatArray] | None:
    """Consumption (t, e) [kW] and [kvar] of `network` over `horizon`, None where `source` has no profiles."""
    kind, _, name = source.partition(":")
    profiles = SOURCES[kind].profiles
    return None if profiles is None else profiles(name, network, horizon)


def table_folder(source: str, folder: Path) -> Path | None:
    """Folder of a source of plain tables, None for one of another kind and where there is none."""
    kind, _, name = source.partition(":")
    return folder / name if kind == "tables" and _is_there(folder / name, Path.is_dir) else None


def _read_pandapower(name: str, folder: Path, options: Options, voltages: Voltages) -> Network:
    from dlmp.network.pandapower import from_pandapower  # noqa: PLC0415
    from dlmp.network.pandapower_nets import net_of_file, net_of_function  # noqa: PLC0415

    if not name.endswith(".json"):
        network = voltages.of(from_pandapower, net_of_function(name, options))
        return replace(network, xy=np.full((network.node_count, 2), np.nan))  # most are drawings, and not good ones
    _refuse_options(options)
    return voltages.of(from_pandapower, net_of_file(name, _existing(folder, name, Path.is_file)))


def _read_simbench(code: str, folder: Path, options: Options, voltages: Voltages) -> Network:
    from dlmp.network.simbench import from_simbench  # noqa: PLC0415

    _refuse_options(options)
    return voltages.of(from_simbench, code)


def _simbench_profiles(code: str, network: Network, horizon: Intervals) -> tuple[FloatArray, FloatArray] | None:
    from dlmp.network.simbench import simbench_profiles  # noqa: PLC0415

    return simbench_profiles(code, network, horizon)


def _read_matpower(name: str, folder: Path, options: Options, voltages: Voltages) -> Network:
    _refuse_options(options)
    return voltages.of(from_matpower, _existing(folder, name, Path.is_file))


def _read_tables(name: str, folder: Path, options: Options, voltages: Voltages) -> Network:
    _refuse_options(options)
    return voltages.of(read_tables, _existing(folder, name, Path.is_dir))


def _read_opendss(name: str, folder: Path, options: Options, voltages: Voltages) -> Network:
    from dlmp.network.opendss import from_opendss  # noqa: PLC0415

    unknown = sorted(set(options) - set(OPENDSS_OPTIONS))
    if unknown:
        raise source_problem("options", unknown, f"are not known for OpenDSS; known: {', '.join(OPENDSS_OPTIONS)}")
    for key, (kind, meaning) in OPENDSS_OPTIONS.items():
        if key in options and not kind(options[key]):
            raise source_problem(f"options.{key}", options[key], meaning)
    return voltages.of(partial(from_opendss, **cast(dict[str, Any], options)), _existing(folder, name, Path.is_file))


def _network_profiles(name: str, network: Network, horizon: Intervals) -> tuple[FloatArray, FloatArray] | None:
    """Consumption (t, e) of a network that carries its own shapes."""
    if not isinstance(network, UnbalancedNetwork) or network.profiles is None:
        return None
    of_p, of_q = network.profiles.factors(horizon)
    return of_p * network.element_p_kw, of_q * network.element_q_kvar


def _is_ratio(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _are_taps(value: object) -> bool:
    """Ratios by name; a capacitor may have all its steps open."""
    return isinstance(value, dict) and all(
        _is_ratio(tap) or (tap == 0 and str(name).endswith(" steps")) for name, tap in value.items()
    )


OPENDSS_OPTIONS: dict[str, tuple[Callable[[object], bool], str]] = {
    "ratings": (lambda value: isinstance(value, bool), "must be true or false"),
    "load_bands": (lambda value: isinstance(value, bool), "must be true or false"),
    "v_unbalance_max": (_is_ratio, "must be a number above zero, such as 0.02"),
    "taps": (_are_taps, 'must be a table of numbers above zero, such as {"transformer.reg1 wdg 2" = 1.0375}'),
}
"""Options of an OpenDSS source: what each must be, and the remedy where it is not."""


def _refuse_options(options: Options) -> None:
    if options:
        raise source_problem("options", dict(options), "are only for functions of pandapower.networks and for OpenDSS")


def _existing(folder: Path, name: str, test: Callable[[Path], bool]) -> Path:
    path = folder / name
    if not _is_there(path, test):
        raise source_problem("source", name, f"there is no {'folder' if test is Path.is_dir else 'file'} {path}")
    return path


def _is_there(path: Path, test: Callable[[Path], bool]) -> bool:
    try:
        return test(path)
    except OSError:  # such as a name too long for any file
        return False


@dataclass(frozen=True)
class Source:
    """A kind of source: how its networks are read, and their consumption over a horizon if it has profiles."""

    read: Reader
    profiles: Profiles | None = None


SOURCES = {
    "pandapower": Source(_read_pandapower),
    "simbench": Source(_read_simbench, _simbench_profiles),
    "matpower": Source(_read_matpower),
    "tables": Source(_read_tables),
    "opendss": Source(_read_opendss, _network_profiles),
}
"""Every kind of source."""
