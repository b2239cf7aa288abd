"""What stands between NumPy and the kernels in C. docs/architecture.md tells how a call goes through it."""
