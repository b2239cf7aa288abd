"""Scripts for what needs a process of its own: threads, forks, what an import leaves alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

Script = Callable[..., str]
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux system calls")

# Every script starts with this. `work` is large enough for several threads to take part.
PROLOGUE = """
import os, traceback
import numpy as np
import rnnfast
from rnnfast.functional import lstm_backward, lstm_forward

T, B, I, H = 19, 67, 31, 83
rng = np.random.default_rng(1)
shapes = (T, B, I), (B, H), (B, H), (4 * H, I), (4 * H, H), (4 * H,), (4 * H,), (T, B, H)
*arguments, dy = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes)

def work(threads=None):
    *results, tape = lstm_forward(*arguments, threads=threads)
    results += lstm_backward(tape, dy, threads=threads)[:-1]  # the gradient of w_hr is None
    return b"".join(array.tobytes() for array in results)

def in_child(function):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if function() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def tasks():
    return len(os.listdir("/proc/self/task"))
"""


def run_script(folder: Path, text: str, *, prologue: str = PROLOGUE, **variables: str) -> str:
    """Run a script in a fresh process, ended with its children after a minute; give its output."""

    clean = ("RNNFAST_NUM_THREADS", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT")
    environment = {name: value for name, value in os.environ.items() if name not in clean}
    process = subprocess.Popen(
        [sys.executable, "-c", prologue + dedent(text)],
        cwd=folder,
        env=environment | {"OPENBLAS_NUM_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.fail("the script hangs")
    assert process.returncode == 0, errors
    return output
