"""Use the installed package beside PyTorch and scikit-learn. All three have a run-time of OpenMP.

    python .ci/beside.py                      # every order of the three imports
    python .ci/beside.py torch rnnfast        # one order: in this process

Each order has a process of its own. All must end, also the processes that they fork, and find the
same bits: with one thread and with two, before and after the others have worked.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

SECONDS = 300  # of one process
Work = Callable[[int], bytes]


def rnnfast_work() -> Work:
    import rnnfast

    layer = rnnfast.LSTM(64, 128, rng=0)
    x = np.random.default_rng(0).standard_normal((10, 16, 64), dtype=np.float32)

    def work(threads: int) -> bytes:
        rnnfast.set_num_threads(threads)
        y, _, tape = layer.forward(x)
        grads = layer.backward(tape, y)
        return b"".join(a.tobytes() for a in (y, grads.input, *grads.params.values()))

    return work


def torch_work() -> Work:
    import torch

    a = torch.from_numpy(np.random.default_rng(1).standard_normal((1 << 17,), dtype=np.float32))

    def work(threads: int) -> bytes:
        torch.set_num_threads(threads)
        return torch.tanh(a).numpy().tobytes()

    return work


def sklearn_work() -> Work:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    X = np.random.default_rng(2).standard_normal((500, 4))

    def work(threads: int) -> bytes:
        with threadpool_limits(threads):
            model = HistGradientBoostingRegressor(max_iter=3, early_stopping=False)
            return model.fit(X, X[:, 0] * X[:, 1]).predict(X[:5]).round(6).tobytes()

    return work


WORK = {"rnnfast": rnnfast_work, "torch": torch_work, "sklearn": sklearn_work}


def run_in_fork(work: Work) -> bool:
    """Whether a forked child finds the same bits as its parent."""
    expected, child = work(2), os.fork()
    if child == 0:
        os._exit(work(2) != expected)
    return os.waitpid(child, 0)[1] == 0


def run_times() -> list[str]:
    """The OpenMP libraries in this process."""
    maps = Path("/proc/self/maps")
    paths = re.findall(r"/\S*lib[gi]?omp\S*", maps.read_text() if maps.exists() else "")
    return sorted({"/".join(Path(path).parts[-2:]) for path in paths})


def one_order(names: list[str]) -> None:
    for name in names:
        import_module(name)
    works = {name: WORK[name]() for name in names}
    found: dict[str, set[bytes]] = {name: set() for name in names}
    for threads, _ in itertools.product((1, 2, 1, 2), range(2)):
        for name, work in works.items():
            found[name].add(work(threads))
    assert all(len(results) == 1 for results in found.values()), found.keys()
    assert run_in_fork(works["rnnfast"])
    seconds = []
    for _ in range(50):  # the best counts: threads wait for each other where the machine is busy
        start = time.perf_counter()
        works["rnnfast"](2)
        seconds.append(time.perf_counter() - start)
    (bits,) = found["rnnfast"]
    digest = hashlib.sha256(bits).hexdigest()[:16]
    print(digest, f"{1e3 * min(seconds):.2f} ms", *names, *run_times(), flush=True)


def main() -> None:
    if names := sys.argv[1:]:
        return one_order(names)
    orders = [["rnnfast"], *map(list, itertools.permutations(WORK))]
    lines = []
    for order in orders:
        command = [sys.executable, __file__, *order]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SECONDS)
        print(done.stdout, end="", flush=True)
        done.check_returncode()
        lines.append(done.stdout)
    assert len({line.split()[0] for line in lines}) == 1, "the results depend on what is imported"


if __name__ == "__main__":
    main()
