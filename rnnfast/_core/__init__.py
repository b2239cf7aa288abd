"""What stands between NumPy and the kernels in C; docs/architecture.md shows the way of a call."""
