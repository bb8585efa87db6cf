"""The power flow of a network by the program that knows it: pandapower, or OpenDSS, loaded when it is asked."""

from dlmp.errors import InputError, Problem
from dlmp.network.checked import CheckedFlow
from dlmp.network.model import BalancedNetwork, ComplexArray, Network, UnbalancedNetwork


def independent_power_flow(network: Network, injection_kva: ComplexArray, law_kva: ComplexArray) -> CheckedFlow:
    """Solve every interval with the program that knows `network`.

    Parameters
    ----------
    network
        Balanced, or read from an OpenDSS circuit.
    injection_kva
        (t, p) Complex injection at every port [kVA].
    law_kva
        (t, w) Nominal consumption of every load that follows its voltage [kVA].

    Raises
    ------
    InputError
        For another network, and when OpenDSS cannot read the circuit again.
    """
    if isinstance(network, BalancedNetwork):
        from dlmp.network.pandapower_check import pandapower_flow  # noqa: PLC0415

        return pandapower_flow(network, injection_kva)
    if isinstance(network, UnbalancedNetwork) and network.origin:
        from dlmp.network.opendss.check import opendss_flow  # noqa: PLC0415

        return opendss_flow(network, injection_kva, law_kva)
    message = "no other program knows it, as it was not read from a file; clear without the certificate"
    raise InputError([Problem("certificate", "network", network.name, message)])
