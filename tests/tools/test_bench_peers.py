"""How each library is called: the same work for all, in its fastest way, with the threads asked."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_peers import fake_jax, fake_openvino

import rnnfast
from rnnfast.bench import peer_jax, peers, worker
from rnnfast.bench.cases import CELLS, DIRECTIONS, DTYPES, Case, inputs
from rnnfast.bench.peers import RUNNERS, blas_threads, expected, missing
from rnnfast.bench.work import UnsupportedError, Work


def needs(library: str) -> None:
    if absent := missing(library):
        pytest.skip(f"{' and '.join(absent)} not installed")


def right(case: Case) -> dict[str, Any]:
    return dict(zip(case.results, expected(case, inputs(case)), strict=True))


def assert_right(work: Work, case: Case) -> None:
    for _ in range(3):
        assert worker.wrong_results(work, case, right(case)) == ""


@pytest.mark.parametrize(
    ("library", "installed", "absent"),
    [
        ("torch", {"torch"}, []),
        ("jax", {"torch"}, ["jax"]),
        ("onnxruntime", {"onnxruntime"}, ["onnx"]),
        ("openvino", {"onnx"}, ["openvino"]),
        ("openvino", set(), ["openvino", "onnx"]),
        ("openvino", {"openvino", "onnx"}, []),
    ],
)
def test_what_a_library_needs_and_this_python_has_not(
    library: str, installed: set[str], absent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: name if name in installed else None)
    assert missing(library) == absent


# ---------------------------------------------------------------------------------- thread counts


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("library", ["rnnfast", "torch", "onnxruntime"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_library_has_the_threads_asked_for_and_says_so(
    library: str, threads: int, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(library)
    monkeypatch.setattr(
        rnnfast._core.threads, "_process_wide", None
    )  # and undo what the runner sets
    case = Case("gru", "tiny", direction)
    if library == "torch":
        import torch

        monkeypatch.setattr(torch, "set_num_threads", set_torch := torch.set_num_threads)
        before = torch.get_num_threads()
    try:
        work = RUNNERS[library](case, inputs(case), threads)
        assert work.threads == threads
    except UnsupportedError:
        assert (library, direction) == ("onnxruntime", "training")
    finally:
        if library == "torch":
            set_torch(before)


@pytest.mark.parametrize(("wrong", "asked"), [(1, 2), (2, 1)])
def test_what_pytorch_says_of_its_threads_is_believed(
    wrong: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the number that it was asked for."""
    needs("torch")
    import torch

    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: wrong)
    for direction in DIRECTIONS:
        case = Case("rnn", "tiny", direction)
        assert RUNNERS["torch"](case, inputs(case), asked).threads == wrong


def test_openvino_that_takes_fewer_threads_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="writes the graph for OpenVINO")
    monkeypatch.setitem(sys.modules, "openvino", fake_openvino(most_threads=2))
    case = Case("gru", "tiny", "forward")
    assert [RUNNERS["openvino"](case, inputs(case), n).threads for n in (1, 2, 3)] == [1, 2, 2]


def test_jax_s_threads_are_those_of_the_pool_that_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(["python", "tf_XLAEigen", "python", "tf_XLAEigen", "llvm"]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "comm").write_text(f"{name}\n")
    (tmp_path / "ended").mkdir()
    monkeypatch.setattr(peer_jax, "TASKS", tmp_path)
    assert peer_jax.eigen_threads() == 2
    monkeypatch.setattr(peer_jax, "TASKS", tmp_path / "0")
    assert peer_jax.eigen_threads() is None, "unknown is not none"
    monkeypatch.setattr(peer_jax, "TASKS", tmp_path / "no such folder")
    assert peer_jax.eigen_threads() is None


def test_numpy_s_threads_are_openblas_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not list(Path(np.__file__).parents[1].glob("numpy.libs/*openblas*")):
        pytest.skip("NumPy has another library than the OpenBLAS of its wheels")
    assert blas_threads() == 1, "tests/conftest.py has asked for that"
    monkeypatch.setattr(np, "__file__", str(tmp_path / "numpy" / "__init__.py"))
    assert blas_threads() is None


# -------------------------------------------------------------------------------------- same work


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", ["rnnfast", "numpy", "torch", "onnxruntime"])
def test_every_call_gives_all_results(library: str, dtype: str, direction: str, cell: str) -> None:
    needs(library)
    case = Case(cell, "tiny", direction, dtype)
    try:
        work = RUNNERS[library](case, inputs(case), 1)
    except UnsupportedError:
        assert library == "onnxruntime"
        assert (direction, dtype) != ("forward", "float32")
        return
    assert_right(work, case)


@pytest.mark.parametrize("cell", CELLS)
def test_openvino_computes_the_case(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="writes the graph for OpenVINO")
    monkeypatch.setitem(sys.modules, "openvino", fake_openvino(most_threads=1))
    case = Case(cell, "tiny", "forward")
    assert_right(RUNNERS["openvino"](case, inputs(case), 1), case)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("shape", "unroll", "dtype"),
    [("step", 1, "float32"), ("tiny", 1, "float64"), ("tiny", 16, "float32")],
)
def test_jax_computes_the_case(
    shape: str,
    unroll: int,
    dtype: str,
    direction: str,
    cell: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch", reason="stands in for JAX")
    for name, module in fake_jax(unrolls := []).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(peer_jax, "fastest", lambda runs: unroll)
    case = Case(cell, shape, direction, dtype)
    work = RUNNERS["jax"](case, inputs(case), 1)
    assert_right(work, case)
    assert work.run()[0].dtype == getattr(sys.modules["torch"], dtype)
    assert work.notes == {"unroll": unroll}
    assert unrolls == ([1] if shape == "step" else [1, 16]) + [unroll] * 4


@pytest.mark.parametrize("faster", [1, 16])
def test_jax_is_timed_with_the_faster_way_of_unrolling(
    faster: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pick(runs: dict[int, Any]) -> int:
        assert set(runs) == {1, 16}
        assert all(run()[0] == f"unroll {unroll}" for unroll, run in runs.items())
        return faster

    pytest.importorskip("torch", reason="stands in for JAX")
    for name, module in fake_jax([]).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(peer_jax, "jax_run", lambda c, a, unroll: lambda: (f"unroll {unroll}",))
    monkeypatch.setattr(peer_jax, "fastest", pick)
    case = Case("gru", "tiny", "training")
    work = RUNNERS["jax"](case, inputs(case), 1)
    assert (work.run(), work.notes) == ((f"unroll {faster}",), {"unroll": faster})


def test_jax_has_compiled_before_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="stands in for JAX")
    for name, module in fake_jax(unrolls := []).items():
        monkeypatch.setitem(sys.modules, name, module)
    case = Case("lstm", "tiny", "training")
    peer_jax.jax_run(case, inputs(case), 16)
    assert unrolls == [16]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_jax_has_the_weights_as_constants_in_inference_only(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="stands in for JAX")
    modules, given = fake_jax([]), []
    jit = modules["jax"].jit

    def seen(function: Any) -> Any:
        compiled = jit(function)
        return lambda *args: (given.append(len(args)), compiled(*args))[1]

    modules["jax"].jit = seen
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    case = Case("lstm", "step", direction)
    RUNNERS["jax"](case, inputs(case), 1).run()
    assert set(given) == {3 if direction == "forward" else 7}


def test_pytorch_infers_in_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("torch")
    case = Case("gru", "tiny", "forward")
    [y] = RUNNERS["torch"](case, inputs(case), 1).run()
    assert y.is_inference()


def test_rnnfast_packs_the_weights_once_for_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    stream = rnnfast.GRU.stream

    def spy(layer: Any, *args: Any, **options: Any) -> Any:
        made.append((args, options))
        return stream(layer, *args, **options)

    monkeypatch.setattr(rnnfast.GRU, "stream", spy)
    case = Case("gru", "tiny", "forward")
    work = RUNNERS["rnnfast"](case, inputs(case), rnnfast.get_num_threads())
    first, second = work.run()[0], work.run()[0]
    assert len(made) == 1
    assert np.any(first != second), "the state is carried on"
    work.restart()
    assert np.array_equal(work.run()[0], first)


def test_a_real_library_is_measured_by_its_worker(tmp_path: Path) -> None:
    """In one process with PyTorch: what it says is what the record will have."""
    needs("torch")
    import torch

    case = Case("lstm", "tiny", "training")
    np.savez(path := tmp_path / "right.npz", **right(case))
    before = torch.get_num_threads()
    try:
        reply = worker.Worker("torch", 2).prepare(asdict(case), str(path), 0)
    finally:
        torch.set_num_threads(before)
    assert reply == {"threads": 2, "notes": {}}
