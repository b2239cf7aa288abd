"""Build of the extension modules; everything declarative is in pyproject.toml.

Two environment variables matter: `CC` names the compiler (gcc or clang) and `RNNFAST_NO_OPENMP=1`
builds without threads.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path
from subprocess import run

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

# Not for the stable ABI, which would serve all versions of Python with one wheel: that of 3.11
# passes arguments in a tuple and a dict, 90 of the 300 ns of a step of `LSTM(1, 32).stream()`
# (Zen 4).

# NumPy's C interface as its oldest supported version has it, without what is deprecated.
NUMPY_API = [
    ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
]

# Instruction sets are chosen in the C files. Fast-math is never on, whatever CFLAGS says: it
# changes results here and, when it reaches the linker, flushes subnormals in the whole process.
NO_FAST_MATH = ["-O3", "-fno-fast-math", "-fno-unsafe-math-optimizations"]
FLAGS = [
    *NO_FAST_MATH,
    "-g0",  # CPython's own flags ask for debugging data, nine tenths of what would be installed
    "-std=gnu11",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
# What -Wextra finds in C that Cython wrote.
FLAGS += ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
# To clang 14, -fno-trapping-math overrides a part of -fno-unsafe-math-optimizations, as it should.
FLAGS += ["-Wno-overriding-t-option"]

NO_COMPILER = """rnnfast needs a C compiler, and '{compiler}' does not work here:
  {error}
Install gcc or clang (Debian, Ubuntu: apt install gcc libc6-dev; Fedora: dnf install gcc;
macOS: xcode-select --install), or name yours with CC=..., and install rnnfast again."""
NO_HEADERS = """rnnfast needs the C headers of Python {version}, and '{compiler}' does not find
them:
  {error}
Install them (Debian, Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel) and
install rnnfast again."""
NOT_GNU = "rnnfast is written in GNU C, which this compiler does not understand: use gcc or clang"
OPENMP_PROGRAM = "#include <omp.h>\nint threads(void) { return omp_get_max_threads(); }"


# Without the names of static functions, which nothing looks up in what is installed. Profilers and
# sanitizers show them: so they stay in what is built in place. GNU's and Apple's linker know it.
NO_LOCAL_SYMBOLS = ["-Wl,-x"]


class BuildExt(build_ext):
    """Say clearly what is missing, find OpenMP, compile the C files side by side."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # file times show no other compiler, no other switch and no edited header
        self.cython_c_in_temp = True

    def run(self) -> None:
        self.symbols = self.inplace or self.editable_mode  # super().run() changes inplace
        super().run()

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "msvc":
            raise PlatformError(NOT_GNU)
        self.require("int f(void) { return 0; }", NO_COMPILER)
        self.require("#include <Python.h>", NO_HEADERS)
        openmp = self.has_openmp()
        files = sum(len(extension.sources) for extension in self.extensions)
        print(
            f"rnnfast: building {'with' if openmp else 'WITHOUT'} OpenMP (threads), "
            f"{files} files to compile, which takes one to three minutes",
            flush=True,
        )
        for extension in self.extensions:
            extension.define_macros.append(("RNNFAST_OPENMP", str(int(openmp))))
            if openmp:
                extension.extra_compile_args.append("-fopenmp")
                extension.extra_link_args.append("-fopenmp")
            if not self.symbols:
                extension.extra_link_args += NO_LOCAL_SYMBOLS
        self.compile_in_parallel()
        super().build_extensions()

    def require(self, program: str, message: str) -> None:
        if error := self.try_build(program):
            compiler, version = self.compiler.compiler_so[0], sysconfig.get_python_version()
            raise PlatformError(message.format(compiler=compiler, version=version, error=error))

    def has_openmp(self) -> bool:
        switched_off = os.environ.get("RNNFAST_NO_OPENMP", "") not in ("", "0")
        return not switched_off and not self.try_build(OPENMP_PROGRAM, "-fopenmp")

    def try_build(self, program: str, *flags: str) -> str:
        """Compile and link a small library; return the first complaint, or nothing."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "trial.c")
            source.write_text(program + "\n")
            headers = [f"-I{path}" for path in self.compiler.include_dirs]
            command = [*self.compiler.compiler_so, *headers, *flags, "-shared", str(source)]
            try:
                trial = run([*command, "-o", f"{source}.so"], capture_output=True, text=True)
            except OSError as error:
                return str(error)
        if trial.returncode == 0:
            return ""
        complaints = [line for line in trial.stderr.splitlines() if "error" in line]
        return complaints[0] if complaints else f"exit status {trial.returncode}"

    def compile_in_parallel(self) -> None:
        compile_all = self.compiler.compile

        def compile_each(sources: list[str], **options: object) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_all([source], **options), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_each


# The modules in Cython. One of them links the kernels in C; the others call them through it.
MODULES = (
    "arrays", "cell_gradients", "cell_passes", "cell_plans", "cells", "config", "gradients",
    "linear", "passes", "ragged", "sequence", "streaming", "tensors",
)  # fmt: skip


def extension(name: str) -> Extension:
    sources = sorted(glob("csrc/**/*.c", recursive=True)) if name == "config" else []
    return Extension(
        f"rnnfast._core.{name}",
        [f"rnnfast/_core/{name}.pyx", *sources],
        include_dirs=["csrc", numpy.get_include()],
        define_macros=list(NUMPY_API),
        libraries=["m"],
        extra_compile_args=list(FLAGS),
        extra_link_args=list(NO_FAST_MATH),
    )


if __name__ == "__main__":  # the tests read the flags above
    setup(ext_modules=[extension(name) for name in MODULES], cmdclass={"build_ext": BuildExt})
