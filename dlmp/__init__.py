"""Clear a market on a distribution feeder into AC-true, explained nodal prices.

>>> import dlmp
>>> clearing = dlmp.clear(dlmp.read_case(dlmp.shipped_case("feeder33")))
>>> clearing.status
'converged'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# What is asked for is loaded then, as `__init__.pyi` says: a program that reads prices waits for no solver.
