"""A folder of case folders to its feeders, and the SHA-256 of all that decides what clearing one of them comes to."""

import hashlib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from dlmp.casefolder.settings import FILE as CASE_FILE
from dlmp.errors import InputError, Problem, Problems
from dlmp.settings import Settings

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Feeder:
    """A market case of a fleet.

    Parameters
    ----------
    name
        Path of its folder below that of the fleet, with ``/``.
    folder
        Its case folder.
    """

    name: str
    folder: Path

    def files(self) -> Iterator[Path]:
        """All files of the case folder, in the order of their names."""
        for place, folders, names in os.walk(self.folder, followlinks=True):
            folders.sort()
            yield from (Path(place) / name for name in sorted(names))

    def size(self) -> int:
        """Bytes of all files: about how long its clearing takes, beside others."""
        return sum(path.stat().st_size for path in self.files() if path.is_file())


@dataclass(frozen=True)
class Way:
    """How every feeder of a fleet is cleared and written: the options of ``dlmp clear``.

    Parameters
    ----------
    settings
        Those of `dlmp.clear`.
    with_taps
        Settle the regulators of OpenDSS circuits at what is cleared (`dlmp.taps`).
    with_certificate
        Check each result independently.
    parquet
        Write the tables as Parquet too.
    """

    settings: Settings
    with_taps: bool = False
    with_certificate: bool = True
    parquet: bool = False


def find_feeders(folder: Path) -> list[Feeder]:
    """Find the case folders in `folder` and its subfolders, in the order of their names.

    Within a case folder no other is looked for; folders whose name begins with a dot are passed over.

    Raises
    ------
    InputError
        When `folder` is none, is a case itself or has no case in it, or when the names of two feeders differ by
        capitals alone: their results would be one folder where file names have no capitals.
    """
    if not folder.is_dir():
        raise InputError([Problem("fleet", "folder", str(folder), "is no folder")])
    if (folder / CASE_FILE).exists():
        message = f"is one market case, for it has a {CASE_FILE}; a fleet is a folder of such folders"
        raise InputError([Problem("fleet", "folder", str(folder), message)])
    try:
        feeders = [Feeder(place.relative_to(folder).as_posix(), place) for place in _case_folders(folder)]
    except OSError as error:
        problem = Problem("fleet", "folder", str(error.filename), f"cannot be read ({error.strerror})")
        raise InputError([problem]) from error
    if not feeders:
        message = f"has no market case in it or in its subfolders; a case is a folder with a {CASE_FILE}"
        raise InputError([Problem("fleet", "folder", str(folder), message)])
    _check_names(feeders)
    return feeders


def _case_folders(folder: Path) -> Iterator[Path]:
    for place in sorted(folder.iterdir()):
        if place.name.startswith(".") or not place.is_dir():
            continue
        if (place / CASE_FILE).exists():
            yield place
        elif not place.is_symlink():
            yield from _case_folders(place)


def _check_names(feeders: list[Feeder]) -> None:
    problems, known = Problems(), dict[str, str]()
    for feeder in feeders:
        other = known.setdefault(feeder.name.casefold(), feeder.name)
        if other != feeder.name:
            problems.add("fleet", "feeder", feeder.name, f"differs from {other!r} by capitals alone; rename one")
    problems.raise_if_any()


def input_sha256(feeder: Feeder, way: Way) -> str:
    """SHA-256 of all files of `feeder`, of how it is cleared, and of the version of dlmp.

    Where ``case.toml`` names a network outside the folder its files count, too: those of its folder if it is an OpenDSS
    script or tables.  What an OpenDSS script refers to beyond its own folder does not.
    """
    total = hashlib.sha256(repr((version("dlmp"), sorted(asdict(way).items()))).encode())
    for path in (*feeder.files(), *_network_elsewhere(feeder.folder)):
        name = os.path.relpath(path, feeder.folder)
        total.update(f"\n{name} {_file_sha256(path)}".encode(errors="surrogateescape"))
    return total.hexdigest()


def _file_sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()


def _network_elsewhere(folder: Path) -> Iterator[Path]:
    try:
        source = tomllib.loads((folder / CASE_FILE).read_text("utf-8"))["network"]["source"]
        kind, _, name = source.partition(":")
        place = (folder / name).resolve()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # reading the case tells what is wrong
    if place.is_relative_to(folder.resolve()) or not place.exists():
        return
    if kind == "opendss":
        place = place.parent
    yield from Feeder("", place).files() if place.is_dir() else (place,)
