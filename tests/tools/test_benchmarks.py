"""`pytest benchmarks` checks what it times: wrong results fail, before and after timing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

pytest.importorskip("pytest_benchmark", reason="the benchmarks' fixture")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ENOUGH = "(cell and tiny and gru) or (tiny and gru and (training or run))"


def benchmarks(folder: Path, plugin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a few of them once each; `plugin` spoils what they time."""
    (folder / "spoil.py").write_text(dedent(plugin))
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); import pytest; import spoil; "
    options = ["--benchmark-disable", "-q", "-p", "no:cacheprovider", "-k", ENOUGH]
    program += f"sys.exit(pytest.main([{str(BENCHMARKS)!r}, *{options!r}]))"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=BENCHMARKS)


def test_right_results_pass(tmp_path: Path) -> None:
    done = benchmarks(tmp_path)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def failures(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The test functions that have failed."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return {line.partition("::")[2].partition("[")[0] for line in lines}


def test_wrong_outputs_of_layers_and_streams_fail(tmp_path: Path) -> None:
    """Of the second sequence on, by 1e-3."""
    plugin = """
        import rnnfast
        from rnnfast.bench import peers

        class GRU(rnnfast.GRU):
            def __call__(self, *args, **options):
                y, state = super().__call__(*args, **options)
                return y + 0.001, state
            def forward(self, *args, **options):
                y, state, tape = super().forward(*args, **options)
                return y + 0.001, state, tape
            def stream(self, *args, **options):
                stream = super().stream(*args, **options)
                class Spoilt:
                    reset = stream.reset
                    threads = stream.threads
                    def run(self, x):
                        return stream.run(x) + 0.001
                return Spoilt()
        GRU.__name__ = "GRU"
        rnnfast.GRU = GRU
        """
    assert failures(benchmarks(tmp_path, plugin)) == {"test_cell", "test_training", "test_run"}


def test_one_wrong_gradient_fails(tmp_path: Path) -> None:
    plugin = """
        import rnnfast
        from rnnfast import functional

        right = functional.gru_backward
        def wrong(*args, **options):
            grads = right(*args, **options)
            grads.b_hh[-1] *= 1.01
            return grads
        functional.gru_backward = wrong

        class GRU(rnnfast.GRU):
            def backward(self, *args, **options):
                grads = super().backward(*args, **options)
                grads.params["bias_hh_l0"][-1] *= 1.01
                return grads
        GRU.__name__ = "GRU"
        rnnfast.GRU = GRU
        """
    assert failures(benchmarks(tmp_path, plugin)) == {"test_cell", "test_training"}


def test_what_goes_wrong_only_while_it_is_timed_fails(tmp_path: Path) -> None:
    plugin = """
        from rnnfast.bench import peers

        for name in ("rnnfast", "numpy"):
            def spoilt(case, arrays, threads, right=peers.RUNNERS[name]):
                work, calls = right(case, arrays, threads), []
                run = work.run
                def later_zero():
                    calls.append(1)
                    return tuple(a * (len(calls) <= 2) for a in run())
                work.run = later_zero
                return work
            peers.RUNNERS[name] = spoilt
        """
    done = benchmarks(tmp_path, plugin)
    assert failures(done) == {"test_cell"}
    assert "after it was timed" in done.stdout
