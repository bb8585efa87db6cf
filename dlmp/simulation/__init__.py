"""A market day on one machine: the real service as a process, an operator, and aggregators that bid at once."""

from dlmp.simulation.day import Day, Stage, simulate_day
from dlmp.simulation.process import KEY_FILE, own_service

__all__ = ["KEY_FILE", "Day", "Stage", "own_service", "simulate_day"]
