"""Tensors of PyTorch as arrays: which ones share their memory, and which are left to PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rnnfast.torch._layer import arrays  # noqa: E402

A = torch.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[0, 1],
        lambda a: a[1:, :, ::2],
        lambda a: a.permute(2, 0, 1),
        lambda a: a[0, 0, 0],
        lambda a: a[:0],
        lambda a: a[:, :1].expand(2, 3, 4),
        lambda a: torch.nn.Parameter(a),
    ],
)
def test_arrays_share_the_memory(view: Any, dtype: Any) -> None:
    tensor = view(A.to(dtype).clone())
    nothing, array = arrays((None, tensor))
    assert nothing is None
    assert array.base is tensor  # or it would outlive the memory
    assert array.dtype == str(dtype).partition(".")[2]
    np.testing.assert_array_equal(array, tensor.detach().numpy(), strict=True)
    if array.size:
        assert array.ctypes.data == tensor.data_ptr()
        array[...] = 7
        assert (tensor == 7).all()


class Derived(torch.Tensor):
    """A class of a user's own, which may compute otherwise."""


@pytest.mark.parametrize(
    "tensor",
    [
        A.half(),
        A.bfloat16(),
        A.long(),
        A.bool(),
        torch.complex(A, A),
        torch.complex(A, A).conj().imag,  # which is negative only when it is looked at
        A.to_sparse(),
        A.to("meta"),
        A.as_subclass(Derived),
        A[None, None],
        torch._efficientzerotensor((2, 3)),
    ],
    ids=lambda t: f"{type(t).__name__}-{t.dtype}-{t.layout}-{t.device}-{t.ndim}",
)
def test_others_are_left_to_pytorch(tensor: Any) -> None:
    assert arrays((tensor,)) is None
    assert arrays((A, tensor)) is None


def test_precisions_are_not_mixed() -> None:
    assert arrays((A, A.double())) is None
    assert arrays((A.double(), None, A)) is None
    assert arrays((A, None, A)) is not None
