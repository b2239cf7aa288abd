"""ONNX: where in a model nodes are found, and by which names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from onnx_models import BODIES, assert_like, helper, inside, node_model, onnx

from rnnfast.onnx import load

# ------------------------------------------------------------------------------------------ bodies


@pytest.mark.parametrize("operator", BODIES)
@pytest.mark.parametrize("constants", ["initializers", "nodes"])
@pytest.mark.parametrize("outer", ["", "WRB", "R"])
@pytest.mark.parametrize("state", ["constant", "input"])
def test_nodes_in_bodies_are_found(operator: str, constants: str, outer: str, state: str) -> None:
    model, _ = node_model("LSTM", constants=constants, state=state)
    body = inside(model, operator, outer)
    for node in (None, "it", "Y_c"):
        assert_like(load(body, node), load(model))


@pytest.mark.parametrize("outer", ["", "WR"])
def test_nodes_in_bodies_of_bodies_are_found(outer: str) -> None:
    model, _ = node_model("GRU", constants="nodes")
    body = inside(inside(inside(model, "If", "WRB"), "Loop", outer), "Scan", outer)
    assert_like(load(body), load(model))
    assert_like(load(body, "it"), load(model))


def test_inputs_of_a_body_are_no_constants() -> None:
    model = inside(node_model("GRU", constants="initializers")[0], "Scan", "W")
    scan = next(node for node in model.graph.node if node.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    body.input[0].name = "W"  # and no longer the constant of that name outside
    with pytest.raises(
        ValueError, match=r"W = 'W', .*; 'W' is an input of body of Scan node 'the_"
    ):
        load(model)


def test_the_list_of_nodes_says_where_they_are() -> None:
    one, _ = node_model("GRU")
    model = inside(inside(one, "Loop"), "If")
    other = onnx.NodeProto()
    other.CopyFrom(one.graph.node[0])
    other.name, other.output[:] = "", ["top", ""]
    model.graph.node.append(other)
    among = (
        "'it' (GRU in body of Loop node 'the_Loop' in then_branch of If node 'the_If'), 'top' (GRU)"
    )
    with pytest.raises(
        ValueError, match=re.escape(f"node is None, expected one of the model's {among}")
    ):
        load(model)
    with pytest.raises(
        ValueError, match=re.escape(f"node is 'no', expected one of the model's {among}")
    ):
        load(model, "no")


# --------------------------------------------------------------------------------------- functions


def function_model(optional: bool = False) -> tuple[Any, Any]:
    """A model whose node is in a function, with an attribute and weights from its call."""
    model, _ = node_model("LSTM", bias=not optional, direction="bidirectional")
    node = model.graph.node[0]
    weights = ["W", "R", "B"]
    inner = helper.make_node("LSTM", ["u", "v", "R", "b"], ["Y", "h", "c"], name="inner")
    reference = inner.attribute.add()
    reference.name, reference.type = "direction", onnx.AttributeProto.STRING
    reference.ref_attr_name = "way"
    unused = inner.attribute.add()
    unused.name, unused.type, unused.ref_attr_name = "clip", onnx.AttributeProto.FLOAT, "limit"
    body = [helper.make_node("Identity", ["w"], ["v"]), inner]
    function = helper.make_function(
        "own", "Rec", ["u", "w", "R", "b"], ["Y", "h", "c"], body,
        [helper.make_opsetid("", 14)], ["way", "limit"],
    )  # fmt: skip
    call = helper.make_node("Rec", ["X", *weights[: 2 + (not optional)]], list(node.output))
    call.domain, call.name = "own", "call"
    call.attribute.append(helper.make_attribute("way", "bidirectional"))
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    graph.node[0].CopyFrom(call)
    opsets = [helper.make_opsetid("", 14), helper.make_opsetid("own", 1)]
    made = helper.make_model(graph, functions=[function], opset_imports=opsets)
    onnx.checker.check_model(made)
    return made, model


@pytest.mark.parametrize("optional", [False, True])
def test_nodes_in_functions_are_found(optional: bool) -> None:
    model, plain = function_model(optional)
    for node in (None, "inner"):
        assert_like(load(model, node), load(plain))
    second = model.graph.node.add()
    second.CopyFrom(model.graph.node[0])
    second.output[:] = ["Y2", "h2", "c2"]
    with pytest.raises(ValueError, match=r"'Y/function Rec/Y' \(LSTM in function Rec of Rec node"):
        load(model)
    assert_like(load(model, "Y2/function Rec/Y"), load(plain))


def test_a_function_that_calls_itself_ends() -> None:
    model, _ = function_model()
    model.functions[0].node.append(helper.make_node("Rec", ["u"], ["z"], domain="own"))
    load(model)


# ------------------------------------------------------------------------------------------- names


def two_nodes(first: str, second: str) -> tuple[Any, list[Any]]:
    """A model of two nodes with these names, side by side, and the layers they are."""
    model, _ = node_model("GRU")
    layers = [load(model)]
    other, _ = node_model("GRU", change=lambda arrays: arrays["W"].__imul__(2))
    layers.append(load(other))
    node = model.graph.node.add()
    node.CopyFrom(model.graph.node[0])
    node.input[1] = "W2"
    node.output[:] = ["Z", "Z_h"]
    weight = next(t for t in other.graph.initializer if t.name == "W")
    weight.name = "W2"
    model.graph.initializer.append(weight)
    model.graph.node[0].name, node.name = first, second
    return model, layers


@pytest.mark.parametrize("names", [("a", "b"), ("a", "a"), ("", ""), ("", "a"), ("Z", "Y_h")])
def test_an_output_names_a_node(names: tuple[str, str]) -> None:
    model, layers = two_nodes(*names)
    for layer, outs in zip(layers, (["Y", "Y_h"], ["Z", "Z_h"]), strict=True):
        for name in outs:
            if name not in names:
                assert_like(load(model, name), layer)


def test_a_name_comes_before_an_output() -> None:
    model, layers = two_nodes("Z", "Y")
    assert_like(load(model, "Z"), layers[0])
    assert_like(load(model, "Y"), layers[1])


def test_a_repeated_name_is_refused_with_the_outputs() -> None:
    model, _ = two_nodes("a", "a")
    expected = "node is 'a', of which there are 2: expected 'Y' (GRU) or 'Z' (GRU)"
    with pytest.raises(ValueError, match=re.escape(expected)):
        load(model, "a")
    with pytest.raises(ValueError, match=re.escape("of the model's 'Y' (GRU), 'Z' (GRU)")):
        load(model)


def test_where_names_and_outputs_repeat_there_is_the_way() -> None:
    model, _ = node_model("GRU")
    both = inside(model, "If", "WRB")
    branches = {a.name: a.g for a in both.graph.node[0].attribute}
    branches["else_branch"].CopyFrom(branches["then_branch"])
    branches["else_branch"].node[0].attribute.append(helper.make_attribute("clip", -1.0))
    ways = ["Y_If/then_branch/Y", "Y_If/else_branch/Y"]
    for name in (None, "it", "Y", "Y_h"):
        with pytest.raises(ValueError, match=rf"'{ways[1]}' .*'{ways[0]}' "):
            load(both, name)
    assert_like(load(both, ways[0]), load(model))
    with pytest.raises(ValueError, match="clip"):
        load(both, ways[1])


def test_another_node_s_name_is_refused_with_its_operator() -> None:
    model, _ = node_model("GRU")
    model.graph.node.append(helper.make_node("Relu", ["Y"], ["out"], name="act"))
    for name in ("act", "out"):
        match = f"node is '{name}', which is Relu node 'act', expected one of the model's 'it'"
        with pytest.raises(ValueError, match=match):
            load(model, name)
    with pytest.raises(TypeError, match="node has type int, expected str"):
        load(model, 3)  # type: ignore[arg-type]
