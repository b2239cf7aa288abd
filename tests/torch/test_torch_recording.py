"""lengths and resets in what torch.jit, torch.export and make_fx record for other inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.export import Dim  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch_cases import KINDS, B, H, I, T, data, pair, parts  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore:.*ONNX:UserWarning"
)
LENGTHS = torch.tensor([2, T, 0])
OTHER = torch.tensor([T, 1, 4])
RESETS = torch.arange(T * B).reshape(B, T) % 4 == 1


class Model(nn.Module):
    def __init__(self, kind: str, dtype: Any = torch.float64) -> None:
        super().__init__()
        options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
        self.layer = pair(kind, dtype, **options)[1]

    def forward(self, x: Any, lengths: Any = None, resets: Any = None) -> Any:
        y, final = self.layer(x, lengths=lengths, resets=resets)
        return y.sin(), *parts(final)


class Packing(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any, lengths: Any) -> Any:
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return pad_packed_sequence(self.layer(packed)[0])[0]


def assert_same(got: Any, want: Any) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


# ---------------------------------------------------------------------------------- torch.jit.trace


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("as_what", [torch.as_tensor, np.asarray, list])
def test_traces_refuse_lengths_and_resets(dtype: Any, as_what: Any) -> None:
    model = Model("gru", dtype)
    x = data(model.layer, B, T)[0].to(dtype)
    with pytest.raises(RuntimeError, match=r"^lengths is given while.*pack_padded_sequence"):
        torch.jit.trace(lambda x: model(x, as_what(LENGTHS))[0], x)
    with pytest.raises(RuntimeError, match=r"^resets is given while.*torch\.export"):
        torch.jit.trace(lambda x: model(x, None, as_what(RESETS))[0], x)


def test_lengths_are_refused_by_the_onnx_exporter_that_traces(tmp_path: Any) -> None:
    model = Model("gru")
    x, _ = data(model.layer, B, T)
    with pytest.raises(RuntimeError, match=r"^lengths is given.*dynamo=False"):
        torch.onnx.export(model, (x, LENGTHS), tmp_path / "model.onnx", dynamo=False)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_traces_follow_packed_sequences_as_in_torch(kind: str) -> None:
    plain, fast = pair(kind)
    x, _ = data(fast, T, B)
    other = x[:, [2, 0, 1]] + 1
    for lengths in torch.tensor([2, T, 1]), torch.tensor([T, 4, 3]):
        traced = torch.jit.trace(Packing(fast), (x, torch.tensor([T, 2, 3])))
        want = Packing(plain)(other, lengths)
        torch.testing.assert_close(traced(other, lengths), want)


def test_packed_sequences_go_to_onnx_as_in_torch(tmp_path: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    _, fast = pair("gru", torch.float32)
    x, _ = data(fast, T, B)
    file, lengths = tmp_path / "model.onnx", torch.tensor([T, 4, 2])
    torch.onnx.export(
        *(Packing(fast), (x, lengths), file), dynamo=False, input_names=["x", "lengths"]
    )
    session = onnxruntime.InferenceSession(file)
    got = session.run(None, {"x": x.numpy() + 1, "lengths": lengths.numpy()})[0]
    want = Packing(fast)(x + 1, lengths).detach().numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)


# ------------------------------------------------------------------------------------- torch.export


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_exported_programs_follow_lengths_and_resets(kind: str, strict: bool) -> None:
    model = Model(kind)
    x, _ = data(model.layer, B, T)
    dims = {0: Dim("b"), 1: Dim("t")}
    program = torch.export.export(
        model, (x, LENGTHS, RESETS), strict=strict, dynamic_shapes=(dims, {0: dims[0]}, dims)
    ).module()
    assert_same(program(x, OTHER, ~RESETS), model(x, OTHER, ~RESETS))
    shorter = torch.cat([x, x])[:4, :4], torch.tensor([4, 0, 2, 1]), RESETS[[0, 1, 2, 0], :4]
    assert_same(program(*shorter), model(*shorter))
    program = torch.export.export(model, (x, LENGTHS), strict=strict).module()
    assert_same(program(x, OTHER), model(x, OTHER))


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of PyTorch's own layers, too
def test_what_an_exported_program_cannot_follow_is_refused() -> None:
    half = Model("gru", torch.float16)
    x = torch.zeros(B, T, I, dtype=torch.float16)
    with pytest.raises(RuntimeError, match=r"lengths is given while.*float32 and float64"):
        torch.export.export(half, (x, LENGTHS))
    model = Model("gru")
    with pytest.raises(RuntimeError, match=r"equal to input_size"):
        torch.export.export(model, (torch.zeros(B, T, I + 1).double(), LENGTHS))
    packed = pack_padded_sequence(x.double(), [T, 4, 2], batch_first=True)
    with pytest.raises(RuntimeError, match=r"resets is given while.*padded"):
        make_fx(lambda flags: model(packed, None, flags)[1])(RESETS)
    with pytest.raises(RuntimeError, match=r"lengths is given while.*torch\.func"):
        make_fx(torch.vmap(lambda x: model(x, LENGTHS)[0]))(x.double()[None])


# ------------------------------------------------------------------------------- make_fx and modes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_make_fx_follows_lengths_and_resets(kind: str, pre_dispatch: bool) -> None:
    model = Model(kind)
    x, _ = data(model.layer, B, T)
    graph = make_fx(model, pre_dispatch=pre_dispatch)(x, LENGTHS, RESETS)
    assert_same(graph(x + 1, OTHER, ~RESETS), model(x + 1, OTHER, ~RESETS))
    graph = make_fx(model, pre_dispatch=pre_dispatch)(x)
    assert_same(graph(x + 1), model(x + 1))


def test_fake_tensors_have_the_shapes_of_the_result() -> None:
    model = Model("gru")
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, lengths = torch.zeros(B, T, I, dtype=torch.float64), torch.zeros(B, dtype=torch.int64)
        inside = model(x, lengths)
    for y, final in inside, model(x, lengths):
        assert y.shape == (B, T, 2 * H)
        assert final.shape == (4, B, H)
