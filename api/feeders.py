"""Feeders: the network part of a case folder, kept by its content, and the nodes at which resources may stand."""

import itertools
import re
import tomllib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import tomli_w
from pydantic import TypeAdapter

from api.archive import content_sha256
from api.errors import Fault, Unprocessable
from api.faults import checked
from api.schemas.common import LARGEST_NUMBER, Name
from dlmp.casefolder import read_case
from dlmp.casefolder.settings import FILE as CASE_FILE
from dlmp.errors import InputError, Problem
from dlmp.network.model import BALANCED_PHASE, Network
from dlmp.shipped import shipped_case

NETWORK_FILE = "network.toml"
UNNAMED = "feeder"
NAME = TypeAdapter(Name)
TABLES = ("nodes.csv", "lines.csv", "aliases.csv", "limits.csv", "zones.csv", "penalties.csv")
"""Tables of a case folder that belong to the network, not to a market day."""
UPLOADED_SOURCE = re.compile(r"tables:\.|matpower:(?P<file>\w+\.m)|pandapower:case\w*", re.ASCII)
"""Sources that an upload may name: none of them runs code or reads files from elsewhere."""

Nodes = tuple[tuple[str, str], ...]
"""Buses and phases."""


@dataclass(frozen=True)
class FeederContent:
    """Files of a feeder, what it is called, and its nodes."""

    files: Mapping[str, bytes]
    description: str
    nodes: Nodes

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        return content_sha256(self.files)


def shipped_feeder(name: str) -> FeederContent:
    """Feeder of a case that ships with dlmp.

    Raises
    ------
    Unprocessable
        When none ships under that name.
    """
    try:
        folder = shipped_case(name)
    except InputError as error:
        raise Unprocessable([Fault("/shipped", "unknown_feeder", error.problems[0].message)]) from None
    files = {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name in TABLES or path.suffix in (".dss", ".m")
    }
    return _content(files, (folder / CASE_FILE).read_text("utf-8"))


def uploaded_feeder(texts: Mapping[str, str]) -> FeederContent:
    """Feeder of uploaded files: ``case.toml`` with a section ``[network]``, and the tables that it names.

    Raises
    ------
    Unprocessable
        With all that is wrong in them.
    """
    faults = []
    for name in texts:
        if not (name == CASE_FILE or name in TABLES or _is_matpower(name)):
            known = ", ".join((CASE_FILE, *TABLES, "NAME.m"))
            faults.append(Fault("/files", "unknown_file", f"A feeder has the files {known} only."))
    if CASE_FILE not in texts:
        faults.append(Fault("/files", "missing", f"{CASE_FILE} is needed."))
    if faults:
        raise Unprocessable(faults)
    files = {name: text.encode() for name, text in texts.items() if name != CASE_FILE}
    case_toml = texts[CASE_FILE]
    found = _faults_of_upload(case_toml, files)
    if found:
        raise Unprocessable(found)
    return _content(files, case_toml)


def _is_matpower(name: str) -> bool:
    return re.fullmatch(r"\w+\.m", name, re.ASCII) is not None


def _faults_of_upload(case_toml: str, files: Mapping[str, bytes]) -> list[Fault]:
    """What an uploaded ``case.toml`` may not say."""
    try:
        document = tomllib.loads(case_toml)
    except (ValueError, RecursionError):  # ValueError also for a number of thousands of digits
        return [Fault("/files/case.toml", "not_toml", "Must be TOML.")]
    faults = [fault.under("/files/case.toml") for fault in checked(NAME, document.get("name", UNNAMED))[1]]
    network = document.get("network")
    values = network if isinstance(network, dict) else {}
    source = values.get("source")
    named = UPLOADED_SOURCE.fullmatch(source) if isinstance(source, str) else None
    if named is None:
        known = "tables:., matpower:NAME.m or pandapower:caseNAME"
        faults.append(Fault("/files/case.toml", "source_not_allowed", f"network.source must be {known}."))
    elif named["file"] not in (None, *files):
        faults.append(Fault("/files/case.toml", "unknown_file", "network.source must name an uploaded file."))
    if any(isinstance(value, list | dict) for value in values.values()):
        faults.append(
            Fault("/files/case.toml", "unknown_field", "network holds texts and numbers only: no options, no lists.")
        )
    if any(isinstance(value, int) and abs(value) > LARGEST_NUMBER for value in values.values()):
        faults.append(Fault("/files/case.toml", "too_large", f"Numbers of network must be within {LARGEST_NUMBER:g}."))
    return faults


def _content(files: Mapping[str, bytes], case_toml: str) -> FeederContent:
    document = tomllib.loads(case_toml)
    name = document.get("name", UNNAMED)
    whole = {**files, NETWORK_FILE: tomli_w.dumps({"network": document["network"], "name": name}).encode()}
    reads_opendss = any(file.endswith(".dss") for file in files)
    return FeederContent(whole, name, _nodes_apart(whole) if reads_opendss else _nodes(whole))


def _nodes_apart(files: Mapping[str, bytes]) -> Nodes:
    """Nodes of a feeder that is read in a process of its own.

    OpenDSS works in the folder where its process is, and falls over a process whose variables have moved since.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        return apart.submit(_nodes, files).result()


def _network(files: Mapping[str, bytes]) -> Network:
    """Network of the files of a feeder.

    Raises
    ------
    Unprocessable
        With everything that is wrong in the files.
    """
    document = tomllib.loads(files[NETWORK_FILE].decode())
    horizon = {"start": "2026-01-01T00:00:00Z", "interval_minutes": 60, "intervals": 1}
    with TemporaryDirectory(prefix="dlmp-feeder-") as folder:
        place = Path(folder)
        for name, content in files.items():
            (place / name).write_bytes(content)
        (place / CASE_FILE).write_text(tomli_w.dumps(document | {"horizon": horizon}), "utf-8")
        (place / "import_prices.csv").write_text("interval,price_usd_per_mwh\n0,0\n", "utf-8")
        try:
            return read_case(place).network
        except InputError as error:
            raise Unprocessable([_fault(found, folder) for found in error.problems]) from None


def _fault(found: Problem, folder: str) -> Fault:
    """Turn a problem of the engine into a fault; paths of this machine are left out."""
    detail = f"{found.element}, {found.field}: {found.message}".replace(folder, "")
    return Fault("/files", "invalid_network", detail)


def _nodes(files: Mapping[str, bytes]) -> Nodes:
    """Buses of a feeder with each of their phases and pairs of phases; a blank phase is all of them."""
    network = _network(files)
    phases: dict[str, list[str]] = {}
    for bus, phase in zip(network.port_bus.tolist(), network.port_phase.tolist(), strict=True):
        phases.setdefault(bus, []).append(phase)
    nodes = []
    for bus, own in phases.items():
        single = [phase for phase in own if phase != BALANCED_PHASE and len(phase) == 1]
        pairs = ["".join(pair) for pair in itertools.combinations(sorted(single), 2)]
        nodes += [(bus, phase) for phase in dict.fromkeys(["", *own, *pairs])]
    return tuple(nodes)
