"""What `rnnfast.jax` refuses and when, and that its callbacks never wait for JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import Case
from documented import raised
from scripts import Script, linux

jax = pytest.importorskip("jax")

from jax_cases import FUNCTIONS, split  # noqa: E402

import rnnfast.jax  # noqa: E402
from rnnfast.jax._host import Forward, Kind  # noqa: E402

jnp = jax.numpy
GIVEN, _ = split(Case(cell="lstm", I=7, H=11).problem())
RUNTIME = jax.errors.JaxRuntimeError


def call(**changes: Any) -> Any:
    return rnnfast.jax.lstm(**GIVEN | changes)


def compiled(**changes: Any) -> Any:
    return jax.jit(lambda given: rnnfast.jax.lstm(**given))(GIVEN | changes)


TRACED: list[tuple[type[BaseException], dict[str, Any], str]] = [
    (TypeError, {"x": GIVEN["x"].astype(int)}, "x has dtype int.*, expected float32 or float64"),
    (TypeError, {"x": jnp.zeros((5, 3, 7), jnp.bfloat16)}, "x has dtype bfloat16, expected float"),
    (TypeError, {"h0": GIVEN["h0"].astype(np.float16)}, "h0 has dtype float16, expected float32"),
    (TypeError, {"lengths": np.ones(3)}, "lengths has dtype float.*, expected integers"),
    (TypeError, {"resets": np.ones((5, 3))}, "resets has dtype float.*, expected dtype bool"),
    (TypeError, {"w_hh": None}, "w_hh has type NoneType"),
    (ValueError, {"x": GIVEN["x"][0]}, r"x has shape \(3, 7\), expected 3 dimensions \(T, B, I\)"),
    (ValueError, {"x": GIVEN["x"][..., :0]}, "expected .* with I >= 1"),
    (ValueError, {"h0": GIVEN["h0"][1:]}, r"h0 has shape \(2, 11\), expected \(B, H\) = \(3, 11"),
    (ValueError, {"c0": GIVEN["c0"].T}, r"c0 has shape \(11, 3\), expected \(B, H\) = \(3, 11\)"),
    (ValueError, {"w_hh": GIVEN["w_hh"][1:]}, r"w_hh has shape \(43, 11\).* with G = 4"),
    (ValueError, {"w_hr": GIVEN["w_hh"]}, r"w_hr has shape \(44, 11\)"),
    (ValueError, {"b_ih": GIVEN["b_ih"][1:]}, r"b_ih has shape \(43,\), expected \(G\*H,\)"),
    (ValueError, {"lengths": np.ones(2, int)}, r"lengths has shape \(2,\), expected \(B,\) = \(3,"),
    (ValueError, {"resets": np.ones((3, 5), bool)}, r"resets has shape \(3, 5\), expected \(T, B"),
]


@pytest.mark.parametrize(("error", "changes", "message"), TRACED)
@pytest.mark.parametrize("way", [call, compiled])
def test_shapes_and_dtypes_are_checked_when_traced(
    way: Callable[..., Any], error: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(error, match=message):
        way(**changes)


@pytest.mark.parametrize(
    ("error", "changes", "message"),
    [
        (TypeError, {"x": GIVEN["x"].tolist()}, "x has type list, expected numpy.ndarray"),
        (TypeError, {"x": jax.random.key(0)}, "x has type PRNGKeyArray"),
        (TypeError, {"lengths": "abc"}, "lengths has type str, expected integers"),
        (TypeError, {"lengths": [1.0, 2.0, 3.0]}, "lengths has dtype float64, expected integers"),
        (ValueError, {"lengths": [0, 6, 1]}, "lengths has values from 0 to 6, expected 0 to T = 5"),
        (ValueError, {"lengths": jnp.array([0, -1, 1])}, "lengths has values from -1 to 1"),
        (TypeError, {"threads": "2"}, "threads has type str"),
        (ValueError, {"threads": 0}, "threads is 0"),
    ],
)
def test_values_are_checked_where_they_are_known(
    error: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(**changes)


def test_the_nonlinearity_is_one_of_four() -> None:
    given, _ = split(Case(cell="rnn").problem())
    with pytest.raises(ValueError, match="nonlinearity is 'selu', expected one of 'tanh'"):
        rnnfast.jax.rnn(**given, nonlinearity="selu")


def test_lengths_that_a_compiled_function_is_given_are_checked_when_it_runs() -> None:
    right, wrong = np.array([5, 0, 2]), np.array([5, 0, 6])
    expected = call(lengths=right)[0]
    for _ in range(2):
        with pytest.raises(RUNTIME, match="lengths has values from 0 to 6, expected 0 to T = 5"):
            jax.block_until_ready(compiled(lengths=wrong))
        np.testing.assert_array_equal(compiled(lengths=right)[0], expected)


def loss(x: Any) -> Any:
    return (call(x=x)[0] ** 2).sum()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_second_derivatives_are_refused(wrap: Any) -> None:
    x = jnp.array(GIVEN["x"])
    first = wrap(jax.grad(loss))
    first(x)
    for second in (
        jax.grad(lambda x: (first(x) ** 2).sum()),
        jax.jacrev(first),
        lambda x: jax.vjp(first, x)[1](x),
        lambda x: jax.jvp(first, (x,), (x,)),
        jax.hessian(loss),
    ):
        with pytest.raises((NotImplementedError, TypeError)) as error:
            second(x)
        assert "first derivatives only" in str(error.value) or "forward-mode" in str(error.value)


def test_gradients_of_gradients_by_a_weight_are_refused_too() -> None:
    def penalty(w: Any) -> Any:
        gradient = jax.grad(lambda x: call(x=x, w_ih=w)[1].sum())(jnp.array(GIVEN["x"]))
        return (gradient**2).sum()

    with pytest.raises(NotImplementedError, match="write the layer with jax"):
        jax.grad(penalty)(jnp.array(GIVEN["w_ih"]))


def test_forward_mode_is_refused() -> None:
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(loss, (GIVEN["x"],), (GIVEN["x"],))


def test_lengths_have_no_gradient() -> None:
    with pytest.raises(TypeError, match="grad requires real- or complex-valued inputs"):
        jax.grad(lambda lengths: call(lengths=lengths)[0].sum())(np.array([1, 2, 3]))


def test_every_documented_error_is_tested_here() -> None:
    tested = {"TypeError", "ValueError", "jax.errors.JaxRuntimeError", "NotImplementedError"}
    for function in FUNCTIONS.values():
        assert set(raised(function.__doc__)) == tested


def test_equal_callbacks_are_compiled_once() -> None:
    kinds = [Kind(*k) for k in ((2, 0, False, None), (2, 0, True, None), (2, 0, False, 1))]
    assert len({Forward(kind) for kind in kinds}) == 3
    assert len({Forward(Kind(2, 0, False, None)), Forward(kinds[0])}) == 1


# Arguments of more than 100 kB are copied on XLA's threads before `jax.pure_callback` sees them: a
# callback that waits for that, on the only thread, waits for ever.
HANGS = """
import os, threading
if one_cpu:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, numpy as np
import rnnfast.jax

T, B, I = 40, 32, 64
rng = np.random.default_rng(0)
x, w_ih, w_hh = (rng.standard_normal(s).astype("f4") * 0.1
                 for s in ((T, B, I), (4 * I, I), (4 * I, I)))

def loss(w, x):
    y = rnnfast.jax.lstm(jax.numpy.tanh(x), None, None, *w)[0]
    return (rnnfast.jax.lstm(y, None, None, *w)[0] ** 2).sum()

train = jax.jit(jax.value_and_grad(loss))
expected = [np.asarray(part) for part in jax.tree.leaves(train((w_ih, w_hh), x))]

def work():
    for n in range(10):
        pending = [train((w_ih, w_hh), x) for _ in range(3)]
        value = loss((w_ih, w_hh), x)
        for parts in pending:
            for part, array in zip(jax.tree.leaves(parts), expected):
                np.testing.assert_array_equal(part, array)
        np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    done.append(1)

done = []
workers = [threading.Thread(target=work) for _ in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(len(done))
"""


@linux
@pytest.mark.parametrize(("one_cpu", "threads"), [(True, 1), (True, 3), (False, 4)])
def test_callbacks_wait_for_nobody(one_cpu: bool, threads: int, script: Script) -> None:
    prologue = f"one_cpu, threads = {one_cpu}, {threads}\n"
    assert script(HANGS, prologue=prologue, NPROC="1" if one_cpu else "") == f"{threads}\n"


def test_without_jax_it_says_what_to_install(script: Script) -> None:
    program = """
    import sys
    sys.modules["jax"] = None
    import rnnfast
    for form in "rnnfast.jax", "import rnnfast.jax", "from rnnfast import jax":
        try:
            exec(form)
        except ModuleNotFoundError as error:
            assert error.name == "jax"
            assert "pip install rnnfast[jax]" in str(error)
            print("refused")
    assert "jax" not in dir(rnnfast)
    """
    assert script(program, prologue="") == 3 * "refused\n"


def test_an_older_jax_is_named(script: Script) -> None:
    program = """
    import sys
    import jax
    import jax.experimental
    sys.modules["jax.experimental.buffer_callback"] = None
    import rnnfast
    try:
        rnnfast.jax
    except ImportError as error:
        print(str(error).replace(f"found {jax.__version__}", "found x"))
    """
    message = "rnnfast.jax needs JAX 0.6.1 or newer, found x: pip install rnnfast[jax]"
    assert script(program, prologue="") == message + "\n"


def test_it_is_imported_at_first_use(script: Script) -> None:
    program = """
    import sys
    import rnnfast
    assert "jax" not in sys.modules
    print(rnnfast.jax.lstm.__module__, "jax" in dir(rnnfast))
    """
    assert script(program, prologue="") == "rnnfast.jax._functions True\n"
