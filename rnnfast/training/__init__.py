"""A small training kit around the layers, in NumPy: losses, optimisers, a loop, checkpoints.

Everything works on named arrays. A layer has `params`, a dict of its live arrays; its `backward`
returns `params`, gradients under the same names; an optimiser holds the first and steps by the
second. Wherever such a dict is expected, the layer or the gradients themselves will do:

>>> import numpy as np
>>> from rnnfast import LSTM
>>> from rnnfast.training import Adam, Linear, clip_norm, join, mean_squared_error
>>> lstm, out = LSTM(2, 16, rng=0), Linear(16, 1, rng=0)
>>> optimizer = Adam(join(lstm=lstm, out=out), lr=0.01)
>>> x = np.random.default_rng(0).random((20, 8, 2), dtype=np.float32)
>>> target = x.sum(axis=2, keepdims=True).cumsum(axis=0)
>>> for _ in range(100):
...     y, state, tape = lstm.forward(x)
...     prediction, out_tape = out.forward(y)
...     loss, d_prediction = mean_squared_error(prediction, target)
...     out_grads = out.backward(out_tape, d_prediction)
...     lstm_grads = lstm.backward(tape, out_grads.input)
...     grads = join(lstm=lstm_grads, out=out_grads)
...     norm = clip_norm(grads, 1.0)
...     optimizer.step(grads)

`fit` is that loop with progress, evaluation, early stop, history and checkpoints.
"""

from __future__ import annotations

from ._array import join
from .activations import Activation, sigmoid, softmax
from .attention import Attention, AttentionGrads
from .bptt import GradientThroughTime, gradient_through_time, streams, windows
from .checkpoint import load_checkpoint, save_checkpoint
from .clip import clip_norm, clip_value, global_norm
from .ctc import ctc_decode, ctc_loss
from .data import minibatches, pad
from .dropout import Dropout
from .fit import fit
from .gradcheck import gradcheck, gradcheck_layer, numerical_gradient
from .history import History
from .losses import length_mask, sigmoid_cross_entropy, softmax_cross_entropy
from .metrics import accuracy, f1_score, mean_absolute_error, root_mean_squared_error
from .modules import Embedding, Linear, ModuleGrads
from .optim import SGD, Adam, AdamW, Optimizer, RMSprop, Rprop
from .plots import new_figure, plot_gradient_through_time, plot_history
from .progress import Progress
from .readout import ridge
from .regression import (
    cosine_distance,
    gaussian_nll,
    huber_loss,
    l1_loss,
    mean_squared_error,
    quantile_loss,
)
from .rtrl import RTRL
from .schedules import CosineDecay, Plateau, StepDecay, WarmUp
from .series import sliding_windows, split_at_random, split_by_time
from .standardizer import Standardizer

__all__ = [
    "RTRL",
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Attention",
    "AttentionGrads",
    "CosineDecay",
    "Dropout",
    "Embedding",
    "GradientThroughTime",
    "History",
    "Linear",
    "ModuleGrads",
    "Optimizer",
    "Plateau",
    "Progress",
    "RMSprop",
    "Rprop",
    "Standardizer",
    "StepDecay",
    "WarmUp",
    "accuracy",
    "clip_norm",
    "clip_value",
    "cosine_distance",
    "ctc_decode",
    "ctc_loss",
    "f1_score",
    "fit",
    "gaussian_nll",
    "global_norm",
    "gradcheck",
    "gradcheck_layer",
    "gradient_through_time",
    "huber_loss",
    "join",
    "l1_loss",
    "length_mask",
    "load_checkpoint",
    "mean_absolute_error",
    "mean_squared_error",
    "minibatches",
    "new_figure",
    "numerical_gradient",
    "pad",
    "plot_gradient_through_time",
    "plot_history",
    "quantile_loss",
    "ridge",
    "root_mean_squared_error",
    "save_checkpoint",
    "sigmoid",
    "sigmoid_cross_entropy",
    "sliding_windows",
    "softmax",
    "softmax_cross_entropy",
    "split_at_random",
    "split_by_time",
    "streams",
    "windows",
]
