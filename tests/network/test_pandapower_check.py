"""Many states in one net are the states that pandapower finds one by one."""

import numpy as np
import pytest
from cases import cigre, feeder33

from dlmp.network import pandapower_check
from dlmp.network.model import BalancedNetwork, ComplexArray
from dlmp.network.pandapower_check import pandapower_flow


def loads_kva(network: BalancedNetwork, states: int) -> ComplexArray:
    """Injections (t, n) of the network's own loads, each scaled in its own way."""
    p_kw, q_kvar = network.element_loads()
    injection = np.zeros((states, network.node_count), complex)
    injection[:, network.load_port] = -(p_kw + 1j * q_kvar)
    return injection * np.random.default_rng(0).uniform(0.2, 1.3, injection.shape)


@pytest.mark.parametrize(
    "network", [feeder33(meshed=True), cigre()], ids=["33 buses, meshed", "CIGRE, two transformers"]
)
def test_states_side_by_side_are_those_alone(monkeypatch: pytest.MonkeyPatch, network: BalancedNetwork):
    monkeypatch.setattr(pandapower_check, "BUSES_AT_ONCE", 3 * network.node_count)  # nets of 3, 3 and 1 states
    injection = loads_kva(network, 7)
    together = pandapower_flow(network, injection)
    alone = [pandapower_flow(network, injection[[state]]) for state in range(7)]
    assert together.converged
    np.testing.assert_allclose(together.v_pu, np.concatenate([flow.v_pu for flow in alone]), rtol=0, atol=1e-11)
    fed = np.concatenate([flow.import_kva for flow in alone])
    np.testing.assert_allclose(together.import_kva, fed, rtol=0, atol=1e-5)
    assert np.ptp(together.import_kva.real) > 50


def test_a_state_beyond_what_the_feeder_carries_takes_no_other_with_it():
    network = feeder33()
    injection = loads_kva(network, 5)
    expected = pandapower_flow(network, injection)
    injection[3] *= 20
    found = pandapower_flow(network, injection)
    assert not found.converged
    rest = [0, 1, 2, 4]
    np.testing.assert_allclose(found.v_pu[rest], expected.v_pu[rest], rtol=0, atol=1e-11)
    no_load = pandapower_flow(network, np.zeros((1, network.node_count), complex)).v_pu[0]
    np.testing.assert_allclose(found.v_pu[3], no_load, rtol=0, atol=1e-9)
