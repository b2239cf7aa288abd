"""Measure this machine: rnnfast, the NumPy reference and the peers, side by side.

`cases` says what is measured, `peers` how each library computes it, `worker` times it in a process
of its own, `run` leads the workers, `report` turns the record into tables and figures.
"""
