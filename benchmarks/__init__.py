"""Benchmarks: frozen market days, timed side by side."""
