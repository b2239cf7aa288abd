"""Measure this machine: rnnfast, the NumPy reference and the peers, side by side.

`cases` says what is measured, and `peers` (with `peer_jax`, `peer_onnx`, `work`) how each library
computes it. `worker` checks and times it in a process of its own (`timing`); `run` leads the
workers. `report` and `plot` turn the record into tables and figures.
"""
