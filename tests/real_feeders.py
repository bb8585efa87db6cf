"""Feeders of real size, each loaded once: that takes seconds."""

import sys
from functools import cache, partial

import pandapower
import pandapower.networks
import pytest

from dlmp.network.model import Network
from dlmp.network.pandapower import from_pandapower
from dlmp.network.simbench import from_simbench


@cache
def oberrhein() -> pandapower.pandapowerNet:
    """pandapower's mv_oberrhein: 20 kV, 147 loads, two feeding transformers with tap and phase shift."""
    module = sys.modules["pandapower.networks.mv_oberrhein"]
    with pytest.MonkeyPatch.context() as patch:
        # The sample net solves itself; compiling that power flow with numba would take longer than all tests of it.
        patch.setattr(module, "runpp", partial(pandapower.runpp, numba=False))
        return module.mv_oberrhein()


@cache
def real_feeder(name: str) -> Network:
    """``mv_oberrhein`` or a SimBench code."""
    return from_pandapower(oberrhein()) if name == "mv_oberrhein" else from_simbench(name)
