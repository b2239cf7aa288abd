"""Figures with matplotlib (`pip install rnnfast[plot]`), which is imported only when one is drawn.

The figures are made without pyplot: no window, no global state, any thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._array import Array
from .history import History


def new_figure(width: float = 7.0, height: float = 4.2) -> Any:
    """An empty `matplotlib.figure.Figure`, size in inches; ImportError says what to install."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install rnnfast[plot]") from error
    return Figure(figsize=(width, height), layout="constrained")


def plot_history(
    history: History,
    path: str | os.PathLike[str] | None = None,
    *,
    unit: str = "loss",
    held_out: str = "held out",
) -> Any:
    """Training and held-out figure, and the gradient norm, over the epochs.

    Parameters
    ----------
    history : History
    path : path, optional
        Where to save the picture.
    unit : str
        Label of the vertical axis.
    held_out : str
        What the held-out figure is called.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    figure = new_figure()
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    epochs = np.arange(1, history.epochs + 1)
    left.plot(epochs, history.loss, label="training")
    if history.held_out:
        left.plot(epochs, history.held_out, label=held_out)
    left.set(xlabel="epoch", ylabel=unit, title="learning curve")
    left.legend()
    right.plot(epochs, history.gradient_norm, color="tab:green")
    right.set(xlabel="epoch", ylabel="global norm before clipping", title="gradient norm")
    if all(norm > 0 for norm in history.gradient_norm):
        right.set_yscale("log")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    return _saved(figure, path)


def plot_gradient_through_time(
    norms: Mapping[str, Array],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "gradient through time",
) -> Any:
    """The gradient's norm at every step, one line per entry: falling to the left it vanishes.

    Parameters
    ----------
    norms : dict of ndarray (T+1, ...)
        Under each line's label, `gradient_through_time(...).norm`; axes but the first are averaged
        (geometric mean).
    path : path, optional
        Where to save the picture.
    title : str

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    figure = new_figure()
    axes = figure.subplots()
    for label, norm in norms.items():
        with np.errstate(divide="ignore"):
            logs = np.log(np.asarray(norm, np.float64)).reshape(len(norm), -1)
        axes.semilogy(np.exp(logs.mean(axis=1)), label=label)
    axes.set(xlabel="time step t", ylabel="norm of d loss / d state(t)", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    return _saved(figure, path)


def _saved(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    if path is not None:
        figure.savefig(path, dpi=100)
    return figure
