"""Benchmarks: speed beside PyTorch, devices, streams, sweeps, and the memory of a record."""
