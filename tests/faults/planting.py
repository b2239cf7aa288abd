"""The list of faults, and how one is planted in a copy of the checkout, built and looked for."""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

ROOT = Path(__file__).parents[2]
C_FILES = (".c", ".h")
CYTHON_FILES = (".pyx", ".pxd")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
COMPILER = shlex.split(os.environ.get("CC", "gcc"))
SECONDS = 300  # until tests that hang count as failed


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One entry of a list: in `file`, `replace` stands for `find`, and one of `tests` must fail."""

    file: str
    what: str
    find: str
    replace: str
    tests: tuple[str, ...] = ()
    isa: str = ""  # the only instruction set that has it; by default the processor's best one
    equivalent: str = ""  # why no test can tell; such a fault is not planted

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"

    @property
    def compiled(self) -> bool:
        return self.file.endswith((*C_FILES, *CYTHON_FILES))


def listed(names: list[str] | None = None) -> list[Fault]:
    """The faults of all lists, or of the `names`d ones."""
    folder = Path(__file__).parent
    faults = []
    for name in names or sorted(path.stem for path in folder.glob("*.toml")):
        entries = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))["fault"]
        for entry in entries:
            entry["tests"] = tuple(entry.get("tests", ()))
            faults.append(Fault(**entry))
    return faults


@dataclass(frozen=True)
class Outcome:
    """What became of a fault: "found", "SURVIVED" or "ERROR", with the output to explain it."""

    verdict: str
    seconds: float
    output: str = ""


class BuildError(Exception):
    """The compiler's complaint."""


def run(
    command: list[str], folder: Path, seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(folder), "CI": "true", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=folder, env=env, text=True, timeout=seconds, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


class Copy:
    """A copy of the checkout with the extension module built at -O1."""

    def __init__(self, folder: Path, like: Copy | None = None) -> None:
        """Build everything, or take what another copy has built."""
        self.folder = folder
        if like is None:
            command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            names = subprocess.check_output(command, cwd=ROOT, text=True).split("\0")
            for name in filter(None, names):
                if (ROOT / name).exists():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, folder / name)
            self.objects = {source: self.compile(source) for source in self.sources()}
            self.link(self.objects)
        else:
            shutil.copytree(like.folder, folder, dirs_exist_ok=True)
            self.objects = {s: folder / o.relative_to(like.folder) for s, o in like.objects.items()}

    def sources(self) -> list[str]:
        files = [*(self.folder / "csrc").rglob("*.c"), *(self.folder / "rnnfast").rglob("*.pyx")]
        return sorted(file.relative_to(self.folder).as_posix() for file in files)

    def compile(self, source: str, output: str = "") -> Path:
        """Compile one source as setup.py does, but faster."""
        made = self.folder / "objects" / f"{Path(source).stem}{output}.o"
        made.parent.mkdir(exist_ok=True)
        if source.endswith(".pyx"):
            c_file = str(made.with_suffix(".c"))
            self.call([sys.executable, "-m", "cython", "-3", source, "-o", c_file])
            source = c_file
        settings = runpy.run_path(str(self.folder / "setup.py"))
        macros = [f"-D{name}={value}" for name, value in settings["NUMPY_API"]]
        headers = ["csrc", np.get_include(), sysconfig.get_paths()["include"]]
        flags = [*settings["FLAGS"], "-O1", "-w", "-fPIC", "-fopenmp", "-DRNNFAST_OPENMP=1"]
        flags += [*macros, *(f"-I{path}" for path in headers)]
        self.call([*COMPILER, *flags, "-c", source, "-o", str(made)])
        return made

    def link(self, objects: dict[str, Path]) -> None:
        """Link every module; the one called config has the C code."""
        c_code = [made for source, made in objects.items() if source.startswith("csrc")]
        for source, made in objects.items():
            if source.endswith(".pyx"):
                parts = [made, *c_code] if made.stem.startswith("config") else [made]
                module = str((self.folder / source).with_suffix("")) + SUFFIX
                command = [*COMPILER, "-shared", "-fopenmp", "-o", f"{module}.new"]
                self.call([*command, *map(str, parts), "-lm"])
                os.replace(f"{module}.new", module)

    def call(self, command: list[str]) -> None:
        done = run(command, self.folder)
        if done.returncode:
            raise BuildError(done.stdout)

    def rebuild(self, fault: Fault, best: str) -> None:
        """Compile what the fault is in: a header of the kernels for one instruction set only."""
        if fault.file.endswith((".pxd", "float_state.h")):
            sources = [source for source in self.objects if source.endswith(".pyx")]
        elif fault.file.endswith((".pyx", ".c")):
            sources = [fault.file]
        else:
            isa, precisions = fault.isa or best, ("f32", "f64")
            sources = [f"csrc/isa/{isa}_{precision}.c" for precision in precisions]
            sources = [s for s in sources if f"real_{s[-5:-2]}" in fault.file] or sources
        self.link(self.objects | {s: self.compile(s, "-faulty") for s in sources})

    def look_for(self, fault: Fault, best: str) -> Outcome:
        """Plant the fault, run its tests, restore what was."""
        start = perf_counter()
        file = self.folder / fault.file
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(fault.find, fault.replace), encoding="utf-8")
        try:
            if fault.compiled:
                self.rebuild(fault, best)
            verdict, output = self.test(fault.tests)
        except BuildError as error:
            verdict, output = "ERROR", f"it does not build:\n{error}"
        finally:
            file.write_text(text, encoding="utf-8")
            if fault.compiled:
                self.link(self.objects)
        return Outcome(verdict, perf_counter() - start, output)

    def test(self, arguments: tuple[str, ...], seconds: float | None = SECONDS) -> tuple[str, str]:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        try:
            done = run([*command, *arguments], self.folder, seconds)
        except subprocess.TimeoutExpired:
            return "found", f"not done after {SECONDS} s"
        # Only a test that fails has found something: not an import error, nor no test at all.
        verdicts = {0: "SURVIVED", 1: "found"}
        if done.returncode < 0:
            return "found", f"crashed with signal {-done.returncode}"
        return verdicts.get(done.returncode, "ERROR"), done.stdout
