"""pandapower nets as networks, through pandapower's own per-unit branch model.

pandapower builds its internal case (``ppc``) in a power flow without loads, which always converges;
the branch table of that case, with taps, switches and fused buses resolved, is what is read here.
`to_pandapower` goes the other way, for an independent power flow.
"""

import copy
import dataclasses
import json

import numpy as np
import pandapower
import pandas as pd
from pandapower.pypower import idx_brch, idx_bus
from scipy import sparse

from dlmp.errors import InputError, Problem, Problems
from dlmp.network.model import BALANCED_PHASE, BalancedNetwork, ComplexArray, FloatArray, IntArray, repeated
from dlmp.units import BASE_KVA, KW_PER_MW

INJECTIONS = {"load": (1.0, "load"), "sgen": (-1.0, "generation"), "storage": (1.0, "storage")}
"""pandapower's tables of fixed injections: sign of consumption, and what we call them."""

REFUSED = (
    *("gen", "trafo3w", "impedance", "dcline", "ward", "xward", "motor", "asymmetric_load", "asymmetric_sgen"),
    *("svc", "ssc", "tcsc", "vsc", "b2b_vsc", "line_dc", "bus_dc", "load_dc", "source_dc"),
)
"""pandapower's tables that a `Network` cannot represent."""

DEFAULT_BAND_PU = (0.9, 1.1)
"""Voltage band where neither the caller nor the source gives one (EN 50160)."""

OPEN_END = "open line end "
"""Name of the node that pandapower adds where a switch opens one end of a line."""

HALF_TURN_DEGREE, QUARTER_TURN_DEGREE = 180.0, 90.0
UNLIMITED_KA = 9999.0
"""pandapower's sample nets write 99999 kA where a line has no limit."""


def from_pandapower(
    net: pandapower.pandapowerNet,
    *,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    source_v_pu: float | None = None,
) -> BalancedNetwork:
    """Turn a pandapower net into a `Network`.

    Parameters
    ----------
    net
        A balanced net: buses, lines, two-winding transformers, switches, shunts, external grids,
        loads, static generators and storage units (fixed at their power).
    v_min_pu, v_max_pu
        Voltage band [pu] of every bus; default: the net's own, else 0.9 to 1.1.
    source_v_pu
        Voltage magnitude [pu] of every external grid; default: the net's own.

    Raises
    ------
    InputError
        With every element that the model cannot represent and every bad value.
    """
    problems = Problems()
    _check_supported(net, problems)
    problems.raise_if_any()
    net = copy.deepcopy(net)
    for table in INJECTIONS:
        net[table]["_in_service"] = net[table].in_service
        net[table]["in_service"] = False
    if source_v_pu is not None:
        net.ext_grid["vm_pu"] = source_v_pu
    try:
        pandapower.runpp(net, numba=False, init="dc")
    except (pandapower.LoadflowNotConverged, LookupError, ValueError, FloatingPointError, UserWarning) as error:
        raise InputError(
            [
                Problem(
                    f"pandapower net {net.name}",
                    "data",
                    str(error) or type(error).__name__,
                    "pandapower cannot solve this net even without loads; check impedances, switches and sources",
                )
            ]
        ) from error
    internal = net._ppc["internal"]
    bus, branch = internal["bus"].real, internal["branch"].real
    node_of = net._pd2ppc_lookups["bus"]
    names = _bus_names(net)
    energised = net.res_bus.vm_pu.notna()
    for index in net.bus.index[net.bus.in_service & ~energised]:
        problems.add(
            f"bus {names[index]}",
            "island",
            names[index],
            "has no path to a source; close a switch to it or take it out of service",
        )
    problems.raise_if_any()
    node_name, alias_bus, alias_node = _node_names(names[energised], node_of, len(bus))
    per_unit = net.sn_mva * KW_PER_MW / BASE_KVA
    labels, kinds, rating_from, rating_to = _branches(net, bus)
    kept = internal["branch_is"].astype(bool)
    band = _voltage_band(net, node_of, energised, len(bus), (v_min_pu, v_max_pu))
    source_index = np.flatnonzero(net.ext_grid.in_service)
    source, first = np.unique(node_of[net.ext_grid.bus.to_numpy()[source_index]], return_index=True)
    grid = net.ext_grid.iloc[source_index[first]]
    element, kind, node, p_kw, q_kvar = _fixed_injections(net, node_of)
    line_shunt = branch[:, idx_brch.BR_G] + 1j * branch[:, idx_brch.BR_B]
    shunt_asymmetry = branch[:, idx_brch.BR_G_ASYM] + 1j * branch[:, idx_brch.BR_B_ASYM]
    ratio = np.where(branch[:, idx_brch.TAP] == 0, 1.0, branch[:, idx_brch.TAP])
    return _without_open_ends(
        BalancedNetwork(
            name=str(net.name) if net.name else "pandapower net",
            bus=node_name,
            phase=np.full(len(bus), BALANCED_PHASE),
            base_kv=bus[:, idx_bus.BASE_KV],
            v_min_pu=band[0],
            v_max_pu=band[1],
            source=source.astype(np.int64),
            source_v_pu=grid.vm_pu.to_numpy() * np.exp(1j * np.deg2rad(grid.va_degree.to_numpy())),
            branch=labels[kept],
            branch_kind=kinds[kept],
            from_node=branch[:, idx_brch.F_BUS].astype(np.int64),
            to_node=branch[:, idx_brch.T_BUS].astype(np.int64),
            series_pu=(branch[:, idx_brch.BR_R] + 1j * branch[:, idx_brch.BR_X]) / per_unit,
            tap=ratio * np.exp(1j * np.deg2rad(branch[:, idx_brch.SHIFT])),
            shunt_from_pu=line_shunt / 2 * per_unit,
            shunt_to_pu=(line_shunt + shunt_asymmetry) / 2 * per_unit,
            rating_from_pu=rating_from[kept],
            rating_to_pu=rating_to[kept],
            rating_is_current=np.ones(len(branch), bool),
            node_shunt_pu=(bus[:, idx_bus.GS] + 1j * bus[:, idx_bus.BS]) * KW_PER_MW / BASE_KVA,
            element=element,
            element_kind=kind,
            element_load=node,
            element_p_kw=p_kw,
            element_q_kvar=q_kvar,
            alias_bus=alias_bus,
            alias_node=alias_node,
            xy=_places(net, node_of, energised, len(bus)),
        )
    )


def _without_open_ends(network: BalancedNetwork) -> BalancedNetwork:
    """Replace each line that is open at one end by the shunt that it is to its other end, exactly."""
    is_open_end = np.char.startswith(network.bus, OPEN_END)
    if not is_open_end.any():
        return network
    from_open, to_open = is_open_end[network.from_node], is_open_end[network.to_node]
    series = 1 / network.series_pu
    behind = series * network.shunt_to_pu / (series + network.shunt_to_pu)
    seen_from = (network.shunt_from_pu + behind) / np.abs(network.tap) ** 2
    behind = series * network.shunt_from_pu / (series + network.shunt_from_pu)
    seen_to = network.shunt_to_pu + behind
    shunt = np.array(network.node_shunt_pu)
    np.add.at(shunt, network.from_node[to_open], seen_from[to_open])
    np.add.at(shunt, network.to_node[from_open], seen_to[from_open])
    kept = ~(from_open | to_open)
    number = np.cumsum(~is_open_end) - 1
    by_node = ("bus", "phase", "base_kv", "v_min_pu", "v_max_pu", "xy")
    by_branch = ["branch", "branch_kind", "series_pu", "tap", "shunt_from_pu", "shunt_to_pu"]
    by_branch += ["rating_from_pu", "rating_to_pu", "rating_is_current"]
    return dataclasses.replace(
        network,
        **{name: getattr(network, name)[~is_open_end] for name in by_node},
        **{name: getattr(network, name)[kept] for name in by_branch},
        **{name: number[getattr(network, name)] for name in ("source", "element_load", "alias_node")},
        from_node=number[network.from_node[kept]],
        to_node=number[network.to_node[kept]],
        node_shunt_pu=shunt[~is_open_end],
    )


def _check_supported(net: pandapower.pandapowerNet, problems: Problems) -> None:
    if not net.ext_grid.in_service.any():
        problems.add("pandapower net", "ext_grid", "none in service", "add one at the substation bus")
    for table in REFUSED:
        frame = net.get(table)
        if isinstance(frame, pd.DataFrame) and len(frame) and frame.get("in_service", pd.Series(True)).any():
            problems.add(
                f"pandapower table {table}",
                "rows",
                len(frame),
                "cannot be represented; replace by lines, transformers, loads or static generators, "
                "and offer generators as resources",
            )
    for table in INJECTIONS:
        for index, row in net[table][net[table].in_service].iterrows():
            for column in ("p_mw", "q_mvar", "scaling"):
                if not np.isfinite(row[column]):
                    name = row["name"] if row["name"] else index
                    problems.add(f"{table} {name}", column, float(row[column]), "must be a finite number")
    for column in net.load.columns[net.load.columns.str.startswith("const_")]:
        for index in net.load.index[(net.load[column] != 0) & net.load.in_service]:
            problems.add(
                f"load {index}", column, float(net.load.at[index, column]), "only constant power loads (0) are modelled"
            )


def _bus_names(net: pandapower.pandapowerNet) -> pd.Series:
    """Names of the buses where every bus has its own, else their indices."""
    given = net.bus.name.map(lambda name: "" if pd.isna(name) else str(name).strip())
    if (given == "").any() or given.duplicated().any():
        return pd.Series(net.bus.index.astype(str), index=net.bus.index)
    return given


def _node_names(names: pd.Series, node_of: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Name each node after its first bus, further buses as aliases; the node of an open line end has no name yet."""
    chosen: list[str] = [""] * count
    alias: list[tuple[str, int]] = []
    for node, name in zip(node_of[names.index.to_numpy()].tolist(), names, strict=True):
        if chosen[node]:
            alias.append((name, node))
        else:
            chosen[node] = name
    chosen = [name or f"{OPEN_END}{node}" for node, name in enumerate(chosen)]
    return (
        np.array(chosen, dtype=str),
        np.array([name for name, _ in alias], dtype=str),
        np.array([node for _, node in alias], dtype=np.int64),
    )


def _places(net: pandapower.pandapowerNet, node_of: np.ndarray, energised: pd.Series, count: int) -> FloatArray:
    """Where each node's first bus is, (count, 2); degrees of longitude are as long as those of latitude there."""
    xy = np.full((count, 2), np.nan)
    texts = net.bus.geo if "geo" in net.bus else pd.Series(index=net.bus.index, dtype=object)
    for index, text in reversed(list(texts[energised].dropna().items())):
        try:
            x, y = json.loads(text)["coordinates"][:2]
            xy[node_of[index]] = float(x), float(y)
        except (TypeError, ValueError, KeyError):
            continue  # pandapower itself takes any text there
    north = np.nanmean(xy[:, 1]) if np.isfinite(xy).any() else 0.0
    if np.nanmax(np.abs(xy), initial=0.0) <= HALF_TURN_DEGREE and abs(north) < QUARTER_TURN_DEGREE:
        xy[:, 0] *= np.cos(np.deg2rad(north))
    return xy


def _branches(net: pandapower.pandapowerNet, bus: np.ndarray) -> tuple[np.ndarray, ...]:
    """Name, kind and current ratings [pu] of every branch of pandapower's case, in its order."""
    count = max((end for _, end in net._pd2ppc_lookups["branch"].values()), default=0)
    names, kinds = np.full(count, "", dtype=object), np.full(count, "switch", dtype=object)
    for table, (start, end) in net._pd2ppc_lookups["branch"].items():
        names[start:end] = [f"{table} {index}" for index in range(end - start)]
    rating_from, rating_to = np.full(count, np.inf), np.full(count, np.inf)
    for table, kind in (("line", "line"), ("trafo", "transformer")):
        frame = net[table]
        if table not in net._pd2ppc_lookups["branch"] or not len(frame):
            continue
        rows = slice(*net._pd2ppc_lookups["branch"][table])
        names[rows] = _element_names(frame, kind)
        kinds[rows] = kind
        derate = frame.df * frame.parallel
        if "max_loading_percent" in frame:
            derate = derate * frame.max_loading_percent.fillna(100.0) / 100.0
        if table == "line":
            base_kv = net.bus.vn_kv.loc[frame.from_bus].to_numpy()
            limit = frame.max_i_ka.where(frame.max_i_ka < UNLIMITED_KA).to_numpy()
            pu = limit * 1000.0 / (BASE_KVA / (np.sqrt(3) * base_kv)) * derate.to_numpy()
            rating_from[rows] = rating_to[rows] = np.where(np.isnan(pu), np.inf, pu)
        else:
            rated = (frame.sn_mva * KW_PER_MW / BASE_KVA * derate).to_numpy()
            rating_from[rows] = rated * net.bus.vn_kv.loc[frame.hv_bus].to_numpy() / frame.vn_hv_kv.to_numpy()
            rating_to[rows] = rated * net.bus.vn_kv.loc[frame.lv_bus].to_numpy() / frame.vn_lv_kv.to_numpy()
    names, kinds = names.astype(str), kinds.astype(str)
    shared = np.isin(names, repeated(names))
    names = np.where(shared, np.char.add(np.char.add(kinds, " "), names), names)
    return names, kinds, rating_from, rating_to


def _element_names(frame: pd.DataFrame, kind: str) -> np.ndarray:
    given = frame.name.map(lambda name: "" if pd.isna(name) else str(name).strip())
    if (given == "").any() or given.duplicated().any():
        return np.array([f"{kind} {index}" for index in frame.index], dtype=str)
    return given.to_numpy().astype(str)


def _voltage_band(
    net: pandapower.pandapowerNet,
    node_of: np.ndarray,
    energised: pd.Series,
    count: int,
    override: tuple[float | None, float | None],
) -> list[np.ndarray]:
    """Tightest band of the buses behind each node, (n,) lower and (n,) upper."""
    band = []
    for column, default, given, tighten in (
        ("min_vm_pu", DEFAULT_BAND_PU[0], override[0], np.maximum),
        ("max_vm_pu", DEFAULT_BAND_PU[1], override[1], np.minimum),
    ):
        limit = np.full(count, -np.inf if tighten is np.maximum else np.inf)
        own = net.bus[column] if column in net.bus and given is None else pd.Series(np.nan, index=net.bus.index)
        own = own.fillna(default if given is None else given)[energised]
        tighten.at(limit, node_of[own.index.to_numpy()], own.to_numpy())
        band.append(np.where(np.isfinite(limit), limit, default if given is None else given))
    return band


def _fixed_injections(net: pandapower.pandapowerNet, node_of: np.ndarray) -> tuple[np.ndarray, ...]:
    """Name, kind, node and consumption [kW], [kvar] of every load, static generator and storage in service."""
    parts = []
    for table, (sign, kind) in INJECTIONS.items():
        frame = net[table]
        frame = frame[frame._in_service & frame.bus.isin(net.res_bus.index[net.res_bus.vm_pu.notna()])]
        scale = sign * KW_PER_MW * frame.scaling
        parts.append(
            pd.DataFrame(
                {
                    "name": _element_names(frame, table),
                    "kind": kind,
                    "node": node_of[frame.bus.to_numpy(dtype=int)],
                    "p": frame.p_mw * scale,
                    "q": frame.q_mvar * scale,
                }
            )
        )
    every = pd.concat(parts)
    if repeated(every.name.to_numpy().astype(str)):
        every["name"] = every.kind + " " + every.name
    return (
        every.name.to_numpy().astype(str),
        every.kind.to_numpy().astype(str),
        every.node.to_numpy().astype(np.int64),
        every.p.to_numpy().astype(float),
        every.q.to_numpy().astype(float),
    )


def to_pandapower(network: BalancedNetwork) -> pandapower.pandapowerNet:
    """Turn a `BalancedNetwork` into a pandapower net with one static generator per node.

    Every branch becomes an ``impedance`` element, whose four admittances hold any tap and phase
    shift exactly.  Node i is bus i and static generator i, whose power is zero.
    """
    net = pandapower.create_empty_network(name=network.name, sn_mva=BASE_KVA / KW_PER_MW)
    pandapower.create_buses(net, network.node_count, vn_kv=network.base_kv, name=network.bus)
    y_ff = _diagonal(network.from_admittance, network.from_node)
    y_ft = _diagonal(network.from_admittance, network.to_node)
    y_tf = _diagonal(network.to_admittance, network.from_node)
    y_tt = _diagonal(network.to_admittance, network.to_node)
    forward, backward, end_from, end_to = -1 / y_ft, -1 / y_tf, y_ff + y_ft, y_tt + y_tf
    if network.branch_count:
        pandapower.create_impedances(
            net, network.from_node, network.to_node,
            rft_pu=forward.real, xft_pu=forward.imag, rtf_pu=backward.real, xtf_pu=backward.imag,
            gf_pu=end_from.real, bf_pu=end_from.imag, gt_pu=end_to.real, bt_pu=end_to.imag,
            sn_mva=BASE_KVA / KW_PER_MW, name=network.branch,
        )  # fmt: skip
    for node in np.flatnonzero(network.node_shunt_pu):
        shunt_mva = network.node_shunt_pu[node] * BASE_KVA / KW_PER_MW
        pandapower.create_shunt(net, int(node), p_mw=shunt_mva.real, q_mvar=-shunt_mva.imag)
    for node, voltage in zip(network.source, network.source_v_pu, strict=True):
        pandapower.create_ext_grid(net, int(node), vm_pu=abs(voltage), va_degree=np.rad2deg(np.angle(voltage)))
    pandapower.create_sgens(net, np.arange(network.node_count), p_mw=0.0, q_mvar=0.0)
    return net


def _diagonal(rows: sparse.csr_array, node: IntArray) -> ComplexArray:
    """(m,) Coefficient of ``node[i]`` in row i."""
    return np.asarray(rows[np.arange(len(node)), node]).ravel()
