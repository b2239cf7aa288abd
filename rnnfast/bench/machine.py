"""Describe the machine a record comes from."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import rnnfast


def cpu_model() -> str:
    """The processor's name as the operating system gives it."""
    if sys.platform == "darwin":
        question = ["sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(question, capture_output=True, text=True, check=False)
        return answer.stdout.strip() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def cpus() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Processor, system, Python and how rnnfast was built."""
    config = rnnfast.config()
    return {
        "cpu": cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{key: config[key] for key in ("isa", "openmp", "compiler")},
    }
