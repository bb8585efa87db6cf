"""pandapower nets from files and from the functions of ``pandapower.networks``."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandapower
import pandapower.networks

from dlmp.network.sourceproblem import source_problem


def net_of_file(name: str, path: Path) -> Any:
    """Net of a JSON file that the source calls `name`; raises `InputError`."""
    return _named(_called(f"pandapower:{name}", pandapower.from_json, str(path)), name)


def net_of_function(name: str, options: Mapping[str, object]) -> Any:
    """Net that a function of ``pandapower.networks`` makes with `options`; raises `InputError`."""
    return _named(_called(f"pandapower:{name}", _network_function(name, options), **options), name)


def _named(net: Any, name: str) -> Any:
    net.name = net.name or name
    return net


def _network_function(name: str, options: Mapping[str, object]) -> Callable[..., Any]:
    functions = {
        label: function
        for label, function in inspect.getmembers(pandapower.networks, inspect.isfunction)
        if function.__module__.startswith("pandapower.networks.") and not label.startswith("_")
    }
    if name not in functions:
        close = ", ".join(difflib.get_close_matches(name, functions, n=4, cutoff=0.4)) or "none"
        raise source_problem("source", f"pandapower:{name}", f"is no function of pandapower.networks; close: {close}")
    try:
        inspect.signature(functions[name]).bind(**options)
    except TypeError as error:
        raise source_problem("options", dict(options), f"do not fit pandapower.networks.{name}: {error}") from error
    return functions[name]


def _called(source: str, function: Callable[..., Any], *arguments: object, **options: object) -> Any:
    """Return the net that pandapower makes; whatever it raises for bad files and options is a problem."""
    try:
        net = function(*arguments, **options)
    except Exception as error:
        message = f"pandapower cannot make this net ({type(error).__name__}: {error})"
        raise (
            source_problem("options", options, message) if options else source_problem("source", source, message)
        ) from error
    if not isinstance(net, pandapower.pandapowerNet):
        raise source_problem("source", source, f"gives a {type(net).__name__}, not a pandapower net")
    return net
