"""ONNX: exported models in ONNX Runtime, and the backend in ONNX's own tests."""

from __future__ import annotations

import itertools
import re
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import cover
from onnx_models import (
    GATES,
    KINDS,
    LENGTHS,
    Array,
    H,
    I,
    assert_close,
    data,
    helper,
    make,
    node_model,
    onnx,
    outputs,
    parts,
    run,
)

from rnnfast.onnx import backend, export

# ------------------------------------------------------------------------------------------ export

EXPORTS = cover(
    42,
    seed=0,
    kind=KINDS,
    num_layers=(1, 2, 3),
    bidirectional=(False, True),
    batch_first=(False, True),
    bias=(True, True, False),
    state=(False, True),
    lengths=(False, True),
)
EXPORTS += [
    {"kind": kind, "num_layers": layers, "state": True, "lengths": True}  # what lengths of 0 need
    for kind, layers in itertools.product(("tanh", "gru", "lstm"), (1, 2))
]


def feeds_of(x: Array, state: Any, lengths: Any) -> dict[str, Array]:
    """The inputs of an exported model; None for what it does not take."""
    names = ["x", "lengths", "h0", "c0"]
    arrays = [x, lengths, *parts(state)]
    return {n: a for n, a in zip(names, arrays, strict=False) if a is not None}


@pytest.mark.parametrize("options", EXPORTS, ids=lambda o: "-".join(map(str, o.values())))
def test_onnx_runtime_computes_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    options = dict(options)
    flags = {name: options.pop(name) for name in ("state", "lengths")}
    layer = make(**options)
    x, state = data(layer)
    state = state if flags["state"] else None
    lengths = LENGTHS if flags["lengths"] else None
    export(layer, tmp_path / "m.onnx", **flags)
    got = run(tmp_path / "m.onnx", feeds_of(x, state, lengths))
    assert_close(got, outputs(layer, x, state, lengths=lengths))


# ONNX Runtime has no kernels for float64; ONNX's own evaluator has only these activations.
@pytest.mark.parametrize("kind", ["tanh", "identity", "gru", "reset_before", "lstm"])
@pytest.mark.parametrize("shape", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_float64_is_exact_in_onnx_reference(
    kind: str, shape: dict[str, Any], tmp_path: Path
) -> None:
    from onnx.reference import ReferenceEvaluator

    layer = make(kind, dtype=np.float64, **shape)
    x, state = data(layer)
    export(layer, tmp_path / "m.onnx", state=True)
    got = ReferenceEvaluator(str(tmp_path / "m.onnx")).run(None, feeds_of(x, state, None))
    assert_close(got, outputs(layer, x, state))


def test_one_model_serves_any_steps_and_rows(tmp_path: Path) -> None:
    layer = make("lstm", num_layers=2)
    export(layer, str(tmp_path / "m.onnx"), state=True)
    for steps, rows in ((1, 1), (2, 5), (13, 3)):
        x, state = data(layer, steps, rows)
        assert_close(run(tmp_path / "m.onnx", feeds_of(x, state, None)), outputs(layer, x, state))


def test_inputs_and_outputs_are_named_and_shaped_as_documented(tmp_path: Path) -> None:
    def described(infos: Any) -> dict[str, list[int | str]]:
        shapes = {info.name: info.type.tensor_type.shape.dim for info in infos}
        return {n: [d.dim_value or d.dim_param for d in dims] for n, dims in shapes.items()}

    layer = make("lstm", num_layers=2, bidirectional=True, batch_first=True)
    export(layer, tmp_path / "m.onnx", state=True, lengths=True)
    graph = onnx.load(tmp_path / "m.onnx").graph
    states = [4, "B", H]
    inputs = {"x": ["B", "T", I], "h0": states, "c0": states, "lengths": ["B"]}
    assert described(graph.input) == inputs
    assert described(graph.output) == {"y": ["B", "T", 2 * H], "h_n": states, "c_n": states}
    export(make("gru"), tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert described(graph.input) == {"x": ["T", "B", I]}
    assert described(graph.output) == {"y": ["T", "B", H], "h_n": [1, "B", H]}


def test_dropout_is_left_out(tmp_path: Path) -> None:
    layer = make("gru", num_layers=2, dropout=0.5)
    export(layer, tmp_path / "m.onnx")
    x, _ = data(layer)
    assert_close(run(tmp_path / "m.onnx", {"x": x}), outputs(layer, x))


def test_export_says_what_it_cannot(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"proj_size=2: ONNX's LSTM has no projection"):
        export(make("lstm", proj_size=2), path)
    with pytest.raises(TypeError, match="layer has type dict, expected RNN, GRU, LSTM or Recurr"):
        export({}, path)  # type: ignore[arg-type]
    layer = make("gru")
    del layer.params["bias_hh_l0"]
    with pytest.raises(ValueError, match=r"missing keys \['bias_hh_l0'\]"):
        export(layer, path)
    assert not path.exists()
    with pytest.raises(OSError, match="No such file"):
        export(make("gru"), tmp_path / "nowhere" / "m.onnx")


# ----------------------------------------------------------------------------------------- backend


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # other operators' tests, when they are made
def test_node_tests_of_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx.backend.test import BackendTest

    runs = []
    original = backend.RecurrentNode.run
    monkeypatch.setattr(
        backend.RecurrentNode, "run", lambda *args: runs.append(1) or original(*args)
    )
    wanted = r"^test_(simple_rnn|rnn|gru|lstm)_.*_cpu$"
    suite = BackendTest(backend, __name__).include(wanted).test_cases["OnnxBackendNodeModelTest"]
    names = [name for name in dir(suite) if re.match(wanted, name)]
    assert len(names) >= 18
    result = unittest.TestResult()
    unittest.TestSuite(map(suite, names)).run(result)
    assert (result.errors, result.failures, result.skipped) == ([], [], [])
    assert result.testsRun == len(runs) == len(names)  # a refusal would count as passed


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("constants", ["initializers", "nodes", "input"])
@pytest.mark.parametrize("given", ["absent", "input", "constant"])
def test_backend_computes_what_onnx_runtime_does(
    direction: str, constants: str, given: str
) -> None:
    for operator in GATES:
        options: dict[str, Any] = {"direction": direction, "constants": constants}
        model, inputs = node_model(operator, **options, state=given, lengths=given)
        want = run(model, inputs)
        assert backend.is_compatible(model)
        node = backend.prepare(model, "CPU")
        for _ in range(2):  # it is prepared for any number of runs
            assert_close(list(node.run(list(inputs.values()))), want)
        assert_close(list(backend.run_model(model, list(inputs.values()))), want)


@pytest.mark.parametrize("operator", GATES)
def test_backend_in_layout_1(operator: str) -> None:
    options = {"direction": "bidirectional", "state": "input", "lengths": "input"}
    model, inputs = node_model(operator, **options)
    y, *states = run(model, inputs)  # ONNX Runtime has no layout 1
    model, _ = node_model(operator, layout=1, **options)
    swapped = [a if a.ndim == 1 else a.swapaxes(0, 1) for a in inputs.values()]
    want = [y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in states)]
    assert_close(list(backend.run_model(model, swapped)), want)


def test_backend_returns_the_outputs_in_the_graph_s_order() -> None:
    model, inputs = node_model("LSTM")
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(reversed(outputs[1:]))
    want = run(model, inputs)
    assert len(want) == 2
    assert_close(list(backend.run_model(model, [inputs["X"]])), want)


def test_backend_runs_a_node() -> None:
    model, inputs = node_model("LSTM", constants="input", state="input", lengths="input")
    node = model.graph.node[0]
    in_order = [inputs[name] for name in node.input if name]
    want = run(model, inputs)
    assert_close(list(backend.run_node(node, in_order)), want)
    node.output[0] = ""
    assert_close(list(backend.run_node(node, in_order)), want[1:])
    with pytest.raises(onnx.checker.ValidationError, match="Unrecognized attribute: nonsense"):
        backend.run_node(helper.make_node("RNN", "XWR", "Y", nonsense=1), in_order[:3])


def test_backend_says_what_it_does_not_run() -> None:
    from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    model, inputs = node_model("GRU")
    with pytest.raises(ValueError, match="device is 'CUDA', expected 'CPU'"):
        backend.prepare(model, "CUDA")
    with pytest.raises(ValueError, match="inputs has length 0, expected one each for X"):
        backend.prepare(model).run([])
    with pytest.raises(TypeError, match="x has dtype float64, expected float32"):
        backend.prepare(model).run([inputs["X"].astype(np.float64)])
    assert not backend.is_compatible(model, "CUDA")
    clipped, _ = node_model("GRU", clip=-1.0)
    with pytest.raises(ValueError, match="GRU node 'it': clip is -1"):
        backend.prepare(clipped)
    assert not backend.is_compatible(clipped)
    model.graph.node.append(helper.make_node("Relu", ["Y"], ["Z"]))
    with pytest.raises(BackendIsNotSupposedToImplementIt, match="model has the nodes GRU, Relu, e"):
        backend.prepare(model)
    assert not backend.is_compatible(model)
    with pytest.raises(BackendIsNotSupposedToImplementIt, match="the nodes Relu, expected one RNN"):
        backend.run_node(model.graph.node[1], [inputs["X"]])
