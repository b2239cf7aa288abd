"""Optimisers with PyTorch's update rules, in place and in preallocated memory.

An optimiser holds the live arrays of a model: a layer, or a `dict[str, ndarray]` such as
`layer.params` or what `join` makes of several layers, and `step(grads)` moves them. `lr` may be
set between steps. Letters: `p` parameter, `g` gradient, `t` the number of the step from 1.
"""

from __future__ import annotations

import numpy as np

from .._core import checks
from ._array import Array, Named, check_fraction, check_positive, pair
from ._optimizer import Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "Rprop"]


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

    `b = momentum b + g`, `p = p - lr b`; without momentum `p = p - lr g`.

    Parameters
    ----------
    params : dict, or object with one as `params`
        The live arrays to move, see `Optimizer`.
    lr : float
        Learning rate.
    momentum : float
        `0 <= momentum < 1`.

    Notes
    -----
    Source: Polyak (1964). The form is that of Sutskever et al., On the importance of initialization
    and momentum in deep learning (2013). The rate is outside the buffer, as in PyTorch.
    """

    slots = ("momentum",)

    def __init__(self, params: Named, lr: float = 0.01, *, momentum: float = 0.0) -> None:
        check_fraction(momentum=momentum)
        self.momentum = momentum
        super().__init__(params, lr)

    def _update(self, g: Array, p: Array, s: Array, *slots: Array) -> None:
        (b,) = slots
        b *= self.momentum
        b += g
        np.multiply(b, self.lr, out=g)


class Rprop(Optimizer):
    """Resilient backpropagation: a step size per weight, moved by the signs of the gradient alone.

    `d = d eta_plus` where the gradient kept its sign, `d eta_minus` where it changed, then clipped
    to `step_sizes`; `p = p - d sign(g)`. Where the sign changed, this step is left out and the
    sign forgotten. For full batches: the noise of small ones turns signs over.

    Parameters
    ----------
    params : dict, or object with one as `params`
        The live arrays to move, see `Optimizer`.
    lr : float
        The first step size of every weight.
    etas : (float, float)
        `(eta_minus, eta_plus)`, `0 < eta_minus < 1 < eta_plus`.
    step_sizes : (float, float)
        Smallest and largest step size.

    Notes
    -----
    Source: Riedmiller & Braun (1993); this variant without weight backtracking is called iRprop-
    in Igel & Hüsken (2000), and is PyTorch's.
    """

    slots = ("previous", "step_size")

    def __init__(
        self,
        params: Named,
        lr: float = 0.01,
        *,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
    ) -> None:
        self.etas, self.step_sizes = pair("etas", etas), pair("step_sizes", step_sizes)
        if not 0 < self.etas[0] < 1 < self.etas[1]:
            raise ValueError(f"etas is {etas}, expected 0 < eta_minus < 1 < eta_plus")
        if not 0 < self.step_sizes[0] <= self.step_sizes[1]:
            raise ValueError(f"step_sizes is {step_sizes}, expected 0 < smallest <= largest")
        super().__init__(params, lr)
        for step_size in self.state["step_size"].values():
            step_size.fill(lr)

    def _update(self, g: Array, p: Array, s: Array, *slots: Array) -> None:
        previous, step_size = slots
        eta_minus, eta_plus = self.etas
        agreement = np.multiply(g, previous, out=s)
        turned = agreement < 0
        np.multiply(step_size, eta_plus, out=step_size, where=agreement > 0)
        np.multiply(step_size, eta_minus, out=step_size, where=turned)
        np.clip(step_size, *self.step_sizes, out=step_size)
        np.copyto(previous, g)
        np.copyto(previous, 0, where=turned)
        np.multiply(np.sign(previous, out=g), step_size, out=g)


class RMSprop(Optimizer):
    """The gradient divided by its running root mean square.

    `v = alpha v + (1 - alpha) g^2`, `p = p - lr g / (sqrt(v) + eps)`.

    Parameters
    ----------
    params : dict, or object with one as `params`
        The live arrays to move, see `Optimizer`.
    lr : float
        Learning rate.
    alpha : float
        How much of the running mean is kept each step.
    eps : float
        Added to the root.

    Notes
    -----
    Source: Tieleman & Hinton, Neural Networks for Machine Learning, lecture 6.5 (2012).
    """

    slots = ("square_avg",)

    def __init__(
        self,
        params: Named,
        lr: float = 0.01,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
    ) -> None:
        check_fraction(alpha=alpha)
        check_positive(eps=eps)
        self.alpha, self.eps = alpha, eps
        super().__init__(params, lr)

    def _update(self, g: Array, p: Array, s: Array, *slots: Array) -> None:
        (v,) = slots
        _running_square(v, g, self.alpha, s)
        np.sqrt(v, out=s)
        s += self.eps
        g /= s
        g *= self.lr


class Adam(Optimizer):
    """Running means of the gradient and of its square, corrected for their start at zero.

    `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
    `p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)`.
    With `weight_decay` the gradient is `g + weight_decay p` throughout.

    Parameters
    ----------
    params : dict, or object with one as `params`
        The live arrays to move, see `Optimizer`.
    lr : float
        Learning rate.
    betas : (float, float)
        How much of each running mean is kept each step.
    eps : float
        Added to the root.
    weight_decay : float
        Strength of the squared penalty on the parameters.

    Notes
    -----
    Source: Kingma & Ba, Adam: a method for stochastic optimization (2015), algorithm 1.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Named,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.betas = beta1, beta2 = pair("betas", betas)
        check_fraction(beta1=beta1, beta2=beta2)
        check_positive(eps=eps)
        if not 0 <= checks.real("weight_decay", weight_decay) < np.inf:
            raise ValueError(f"weight_decay is {weight_decay}, expected a finite number >= 0")
        self.eps, self.weight_decay = eps, weight_decay
        super().__init__(params, lr)

    def _update(self, g: Array, p: Array, s: Array, *slots: Array) -> None:
        if self.weight_decay:
            g += np.multiply(p, self.weight_decay, out=s)
        self._adapt(g, s, *slots)

    def _adapt(self, g: Array, s: Array, m: Array, v: Array) -> None:
        beta1, beta2 = self.betas
        m += np.multiply(np.subtract(g, m, out=s), 1 - beta1, out=s)
        _running_square(v, g, beta2, s)
        root = (1 - beta2**self.steps) ** 0.5  # taken out of the denominator
        np.sqrt(v, out=s)
        s += self.eps * root
        np.divide(m, s, out=g)
        g *= self.lr * root / (1 - beta1**self.steps)


class AdamW(Adam):
    """`Adam` with the decay applied to the parameters themselves: `p = (1 - lr weight_decay) p`.

    Parameters
    ----------
    params, lr, betas, eps
        As `Adam`.
    weight_decay : float
        Decay per unit of learning rate.

    Notes
    -----
    Source: Loshchilov & Hutter, Decoupled weight decay regularization (2019).
    """

    def __init__(
        self,
        params: Named,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _update(self, g: Array, p: Array, s: Array, *slots: Array) -> None:
        self._adapt(g, s, *slots)
        if self.weight_decay:
            g += np.multiply(p, self.lr * self.weight_decay, out=s)


def _running_square(v: Array, g: Array, keep: float, s: Array) -> None:
    """`v = keep v + (1 - keep) g^2` with scratch `s`."""
    v *= keep
    v += np.multiply(np.multiply(g, g, out=s), 1 - keep, out=s)
