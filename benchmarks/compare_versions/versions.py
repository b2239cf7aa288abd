"""Build a version of the project in a folder, and talk to a process that runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def copy_checkout(folder: Path) -> None:
    """Copy the files of the checkout as they are now, committed or not."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(command, cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def copy_revision(revision: str, folder: Path) -> None:
    """Copy the files of a commit."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


class Version:
    """A version of rnnfast, built in a folder of its own."""

    def __init__(self, name: str, folder: Path, revision: str | None) -> None:
        """Copy `revision`, or the checkout if it is None, and build it."""
        self.name, self.folder = name, folder
        folder.mkdir()
        if revision is None:
            copy_checkout(folder)
        else:
            copy_revision(revision, folder)
        log = folder / "build.log"
        with log.open("wb") as output:
            command = [sys.executable, "setup.py", "build_ext", "--inplace"]
            done = subprocess.run(command, cwd=folder, stdout=output, stderr=output, check=False)
        if done.returncode:
            raise SystemExit(f"{name} does not build:\n{log.read_text()[-2000:]}")

    def start(self, isa: str, cpus: int | None = None) -> Process:
        """A process with this version, on the first `cpus` CPUs (all by default)."""
        return Process(self, isa, cpus)


class Process:
    """A child process: it gets a request as a line of JSON and answers with another."""

    def __init__(self, version: Version, isa: str, cpus: int | None) -> None:
        env = os.environ | {"PYTHONPATH": str(version.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        if isa:
            env["RNNFAST_ISA"] = isa
        child = Path(__file__).with_name("child.py")
        self.process = subprocess.Popen(
            [sys.executable, str(child), str(ROOT / "tests" / "helpers"), str(version.folder)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if cpus is not None and hasattr(os, "sched_setaffinity"):
            allowed = sorted(os.sched_getaffinity(0))[:cpus]
            os.sched_setaffinity(self.process.pid, allowed)

    def ask(self, *request: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        if not (answer := self.process.stdout.readline()):
            raise SystemExit("a process of compare_versions ended before it answered")
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
