"""Feeders of real size, each loaded once: that takes seconds."""

import sys
from functools import cache, partial

import pandapower
import pandapower.networks
import pytest
import simbench

from dlmp.network.model import Network
from dlmp.network.pandapower import from_pandapower

REAL_FEEDERS = ["mv_oberrhein", "1-MV-rural--0-sw", "1-LV-rural3--0-sw", "1-MV-urban--0-sw"]
"""pandapower's mv_oberrhein and three SimBench codes."""

OLD_SAMPLE = pytest.mark.filterwarnings("ignore:tap_dependency_table is missing:DeprecationWarning")
"""pandapower warns of the format of its own mv_oberrhein."""


@cache
def oberrhein() -> pandapower.pandapowerNet:
    """pandapower's mv_oberrhein: 20 kV, 147 loads, two feeding transformers with tap and phase shift."""
    module = sys.modules["pandapower.networks.mv_oberrhein"]
    with pytest.MonkeyPatch.context() as patch:
        # The sample net solves itself; compiling that power flow with numba would take longer than all tests of it.
        patch.setattr(module, "runpp", partial(pandapower.runpp, numba=False))
        return module.mv_oberrhein()


@cache
def real_net(name: str) -> pandapower.pandapowerNet:
    """The net of one of `REAL_FEEDERS`; leave it as it is."""
    return oberrhein() if name == "mv_oberrhein" else simbench.get_simbench_net(name)


@cache
def real_feeder(name: str) -> Network:
    """The network of one of `REAL_FEEDERS`."""
    return from_pandapower(real_net(name))
