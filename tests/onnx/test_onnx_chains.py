"""ONNX: chains of nodes as the stacked layers of one layer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import cover
from onnx_models import (
    KINDS,
    LENGTHS,
    Array,
    H,
    I,
    T,
    assert_close,
    assert_same,
    data,
    helper,
    inside,
    make,
    node_model,
    onnx,
    outputs,
    run,
)

from rnnfast.onnx import export, load

LAYERS = cover(
    80,
    seed=1,
    kind=KINDS,
    num_layers=(1, 2, 3),
    bidirectional=(False, True),
    batch_first=(False, True),
    bias=(True, False),
    dtype=(np.float32, np.float64),
    state=(False, True),
    lengths=(False, True),
)


def assert_identical(got: Any, want: Any) -> None:
    """The same class, options, parameters and results."""
    assert type(got) is type(want)
    assert repr(got) == repr(want)
    assert got.params.keys() == want.params.keys()
    assert_same(list(got.params.values()), list(want.params.values()))
    x, state = data(want)
    assert_same(outputs(got, x), outputs(want, x))
    assert_same(outputs(got, x, state, lengths=LENGTHS), outputs(want, x, state, lengths=LENGTHS))


@pytest.mark.parametrize(
    "options", LAYERS, ids=lambda o: "-".join(getattr(v, "__name__", str(v)) for v in o.values())
)
def test_load_undoes_export(options: dict[str, Any], tmp_path: Path) -> None:
    options = dict(options)
    flags = {name: options.pop(name) for name in ("state", "lengths")}
    layer = make(**options)
    export(layer, tmp_path / "m.onnx", **flags)
    assert_identical(load(tmp_path / "m.onnx"), layer)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("fixed", ["reverse", "state", "c", "lengths", "all"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_load_undoes_export_of_what_nodes_fix(
    num_layers: int, fixed: str, batch_first: bool, tmp_path: Path
) -> None:
    model, _ = node_model(
        "LSTM",
        direction="reverse" if fixed in ("reverse", "all") else "forward",
        state="constant" if fixed in ("state", "c", "all") else "absent",
        lengths="constant" if fixed in ("lengths", "all") else "absent",
        change=(lambda arrays: arrays.pop("initial_h")) if fixed == "c" else None,
    )
    one: Any = load(model)
    plain = make("lstm", num_layers=num_layers, batch_first=batch_first, bidirectional=False)
    layer = type(one)(I, H, num_layers, batch_first=batch_first, rng=3)
    assert type(layer) is not type(plain)
    layer._reverse, layer.lengths = one.reverse, one.lengths
    if one.initial_state is not None:
        layer.initial_state = tuple(
            None if part is None else np.concatenate([part * (k + 1) for k in range(num_layers)])
            for part in one.initial_state
        )
    export(layer, tmp_path / "m.onnx")
    same: Any = load(tmp_path / "m.onnx")
    assert_identical(same, layer)
    assert same.reverse == layer.reverse
    for name in ("initial_state", "lengths"):
        assert (getattr(same, name) is None) == (getattr(layer, name) is None)


# ------------------------------------------------------------------------------ what is a chain


def exported(path: Path, *, state: bool = False, lengths: bool = False, **options: Any) -> Any:
    """The ModelProto of an LSTM of two stacked layers, by default."""
    layer = make("lstm", **{"num_layers": 2} | options)
    export(layer, path / "m.onnx", state=state, lengths=lengths)
    return onnx.load(path / "m.onnx")


def find(model: Any, name: str) -> Any:
    """The node with this name or output."""
    return next(n for n in model.graph.node if name in (n.name, *n.output))


def insert(model: Any, before: str, *nodes: Any) -> None:
    """Put nodes before the one with that name or output."""
    rest = list(model.graph.node)
    place = rest.index(find(model, before))
    del model.graph.node[:]
    model.graph.node.extend([*rest[:place], *nodes, *rest[place:]])


def between(model: Any, operator: str, *more: str, **attributes: Any) -> None:
    """Put a node between the two layers."""
    node = helper.make_node(operator, ["x_1", *more], ["between"], **attributes)
    insert(model, "layer_1", node)
    find(model, "layer_1").input[0] = "between"


def constant(model: Any, name: str, value: Any) -> str:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return name


def replace(model: Any, name: str, value: Array) -> None:
    """Give an initializer another value."""
    old = next(t for t in model.graph.initializer if t.name == name)
    old.CopyFrom(onnx.numpy_helper.from_array(value, name))


def values(model: Any, name: str) -> Array:
    return np.array(
        onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))
    )


def state_of_the_first(model: Any) -> None:
    """As an encoder and a decoder have it."""
    for k, names in enumerate((["h", "c"], ["h_n_0", "c_n_0"])):
        find(model, f"layer_{k}").input[5:] = names
    for name in "hc":
        model.graph.input.append(helper.make_tensor_value_info(name, 1, [1, "B", H]))


def state_of_the_first_in_a_body(model: Any) -> None:
    """The same through a node that uses it inside only."""
    state_of_the_first(model)
    infos = [helper.make_tensor_value_info("chosen", 1, [1, "B", H])]
    body = helper.make_graph([helper.make_node("Relu", ["h_n_0"], ["chosen"])], "b", [], infos)
    yes = constant(model, "yes", np.array(True))
    node = helper.make_node("If", [yes], ["start"], then_branch=body, else_branch=body)
    insert(model, "layer_1", node)
    find(model, "layer_1").input[5:] = ["start", "c"]


def skip(model: Any) -> None:
    model.graph.node.append(helper.make_node("Add", ["y", "x_1"], ["sum"]))


def tap(model: Any) -> None:
    model.graph.output.append(helper.make_tensor_value_info("x_1", 1, ["T", "B", H]))


def fork(model: Any) -> None:
    other = onnx.NodeProto()
    other.CopyFrom(find(model, "layer_1"))
    other.name, other.output[:] = "layer_2", ["Y_2", "h_2", "c_2"]
    model.graph.node.append(other)


def other_size(model: Any) -> None:
    """Halve the second layer."""
    for a in find(model, "layer_1").attribute:
        if a.name == "hidden_size":
            a.i = 1
    rows = slice(0, 4)
    replace(model, "W_1", values(model, "W_1")[:, rows])
    replace(model, "R_1", values(model, "R_1")[:, rows, :1])
    replace(model, "B_1", values(model, "B_1")[:, :8])


def other_direction(model: Any) -> None:
    for a in find(model, "layer_1").attribute:
        if a.name == "direction":
            a.s = b"reverse"


def no_bias(model: Any) -> None:
    find(model, "layer_1").input[3] = ""


def own_lengths(model: Any) -> None:
    for k, value in enumerate(([3, 5, 1], [3, 5, 2])):
        find(model, f"layer_{k}").input[4] = constant(model, f"n{k}", np.array(value, np.int32))


def lengths_of_one(model: Any) -> None:
    find(model, "layer_1").input[4] = constant(model, "n", np.array([3, 5, 1], np.int32))


def state_of_one(model: Any) -> None:
    """A constant for the first layer, an input for the second."""
    start = constant(model, "start", np.ones((1, 3, H), np.float32))
    model.graph.input.append(helper.make_tensor_value_info("given", 1, [1, "B", H]))
    for k, name in enumerate((start, "given")):
        find(model, f"layer_{k}").input[5] = name


def active_dropout(model: Any) -> None:
    ratio, on = constant(model, "ratio", np.float32(1e-9)), constant(model, "on", np.array(True))
    between(model, "Dropout", ratio, on)


NO_CHAINS: dict[str, Any] = {
    "the state of the second is the first's": state_of_the_first,
    "the state of the second is made of the first's": state_of_the_first_in_a_body,
    "the first's output goes on": skip,
    "the first's output is the model's": tap,
    "two read the first": fork,
    "another size": other_size,
    "another direction": other_direction,
    "only one has biases": no_bias,
    "other lengths": own_lengths,
    "lengths for one only": lengths_of_one,
    "a constant state for one only": state_of_one,
    "an active dropout between": active_dropout,
    "another operator between": lambda model: between(model, "Relu"),
    "other axes swapped between": lambda model: between(model, "Transpose", perm=[1, 0, 2]),
    "a reshape between that is for one size": lambda model: between(
        model, "Reshape", constant(model, "shape", np.array([T, 3, H]))
    ),
}


@pytest.mark.parametrize("change", NO_CHAINS.values(), ids=NO_CHAINS)
def test_other_nodes_are_no_chain(change: Any, tmp_path: Path) -> None:
    model = exported(tmp_path)
    alone = [load(model, f"layer_{k}") for k in range(2)]
    assert load(model).num_layers == 2
    for k in range(2):
        node = find(model, f"layer_{k}")
        node.input.extend([""] * (7 - len(node.input)))
    change(model)
    with pytest.raises(ValueError, match=r"node is None, expected one of the model's 'layer_0' \("):
        load(model)
    if change in (skip, tap, fork):
        for k in range(2):
            assert_identical(load(model, f"layer_{k}"), alone[k])


def inactive_dropout(model: Any, *more: str) -> None:
    between(model, "Dropout", constant(model, "ratio", np.float32(0.5)), *more)


CHAINS: dict[str, Any] = {
    "nothing": lambda model: None,
    "identity": lambda model: between(model, "Identity"),
    "dropout": inactive_dropout,
    "dropout that says so": lambda model: inactive_dropout(
        model, constant(model, "off", np.array(False))
    ),
    "another form of the reshape": lambda model: replace(model, "y_shape", np.array([0, 0, -1])),
    "the shape of the first's output": lambda model: insert(
        model, "layer_1", helper.make_node("Shape", ["x_1"], ["sizes"])
    ),
}


@pytest.mark.parametrize("change", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_may_stand_between_the_nodes(change: Any, bidirectional: bool, tmp_path: Path) -> None:
    model = exported(tmp_path, bidirectional=bidirectional)
    want = load(model)
    change(model)
    assert_identical(load(model), want)


def test_squeeze_as_attribute_and_as_input(tmp_path: Path) -> None:
    for opset in (11, 14):
        model = exported(tmp_path)
        want = load(model)
        model.opset_import[0].version = opset
        more = {"axes": [1]} if opset == 11 else {}
        inputs = ["Y_0"] if more else ["Y_0", constant(model, "axis", np.array([-3]))]
        insert(model, "layer_1", helper.make_node("Squeeze", inputs, ["squeezed"], **more))
        find(model, "layer_1").input[0] = "squeezed"
        for name in ("x_1", "Y_0_by_row"):
            model.graph.node.remove(find(model, name))
        assert_identical(load(model), want)


def test_nodes_of_layout_1_are_stacked() -> None:
    """Here nothing is swapped between them."""
    model, inputs = node_model("GRU", layout=1, direction="bidirectional")
    first = load(model)
    wide, _ = node_model("GRU", layout=1, direction="bidirectional", change=widen)
    second = load(wide)
    node = onnx.NodeProto()
    node.CopyFrom(wide.graph.node[0])
    node.name, node.input[:4], node.output[:] = "second", ["x", "W2", "R2", "B2"], ["Z", "Z_h"]
    tensors = [tensor for tensor in wide.graph.initializer if tensor.name in "WRB"]
    for tensor in tensors:
        tensor.name += "2"
    model.graph.initializer.extend(tensors)
    reshape = helper.make_node("Reshape", ["Y", constant(model, "s", np.array([0, 0, -1]))], ["x"])
    model.graph.node.extend([reshape, node])
    del model.graph.output[:]
    layer = load(model)
    assert layer.batch_first
    assert layer.num_layers == 2
    x = inputs["X"]
    y, h = first(x)
    y, h_2 = second(y)
    assert_same(outputs(layer, x), [y, np.concatenate([h, h_2])])


def widen(arrays: dict[str, Array]) -> None:
    """Make W read both directions of another node."""
    rows = arrays["W"].shape[1]
    arrays["W"] = np.random.default_rng(5).uniform(-1, 1, (2, rows, 2 * H)).astype(np.float32)
    arrays["R"] = arrays["R"][::-1].copy()


def test_a_node_of_a_chain_alone_reads_what_the_node_does(tmp_path: Path) -> None:
    model = exported(tmp_path, batch_first=True)
    x, _ = data(make("lstm"))
    whole = load(model)
    assert whole.batch_first
    assert not load(model, "layer_0").batch_first
    y = load(model, "layer_1")(load(model, "layer_0")(x)[0])[0]
    assert_same([y.swapaxes(0, 1)], [whole(x.swapaxes(0, 1))[0]])
    assert_close(
        [whole(x.swapaxes(0, 1))[0]], run(tmp_path / "m.onnx", {"x": x.swapaxes(0, 1)})[:1]
    )


def test_batch_first_is_swapping_before_and_after(tmp_path: Path) -> None:
    for num_layers in (1, 2):
        model = exported(tmp_path, batch_first=True, num_layers=num_layers)
        last = f"Y_{num_layers - 1}"
        only_x, only_y, both = (copy.deepcopy(model) for _ in "123")
        find(only_x, f"{last}_by_row").attribute[0].ints[:] = [0, 2, 1, 3]
        find(only_y, "layer_0").input[0] = "x"
        only_y.graph.node.remove(find(only_y, "x_by_step"))
        both.graph.node.append(helper.make_node("Relu", [last], ["also"]))
        unused = copy.deepcopy(model)
        for name in ("y", f"{last}_by_row"):
            unused.graph.node.remove(find(unused, name))
        del unused.graph.output[0]
        for changed, expected in ((only_x, False), (only_y, False), (both, False), (unused, True)):
            assert load(changed).batch_first == expected


def test_chains_in_bodies_and_more_than_one(tmp_path: Path) -> None:
    model = exported(tmp_path)
    assert_identical(load(inside(model, "If", "W_0 y_shape")), load(model))
    twice = onnx.compose.add_prefix(model, "a_")
    other = onnx.compose.add_prefix(model, "b_").graph
    twice.graph.node.extend(other.node)
    twice.graph.initializer.extend(other.initializer)
    with pytest.raises(ValueError, match=r"'a_layer_0' .*'a_layer_1' .*'b_layer_0' .*'b_layer_1'"):
        load(twice)
    assert_identical(load(twice, "b_layer_1"), load(model, "layer_1"))
