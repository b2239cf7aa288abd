"""Run tests under AddressSanitizer with its LeakSanitizer, then under UndefinedBehaviorSanitizer.

    python tests/helpers/sanitize.py            # tests of the kernels, a sample of their cases
    python tests/helpers/sanitize.py --all      # the whole suite

It needs gcc and what the tests need. It builds in a temporary folder. Every instruction set that
the machine can run takes part. As `-p sanitize`, it is the plugin of pytest that draws the sample
and writes down how the tests ended.

The two sanitizers have a build each: gcc takes several times as long for both in one.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LITTER = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", ".benchmarks", "*.so", "build"
)
MODULES = (
    "core/test_kernels.py", "core/test_exact.py", "core/test_invariance.py", "core/test_empty.py",
    "core/test_nan.py", "core/test_blocks.py", "core/test_subnormals.py", "layers/test_stream.py",
    "layers/test_stream_threads.py", "cells/test_cells_engine.py", "cells/test_cells_kinks.py",
    "cells/test_cells_products.py",
)  # fmt: skip
# Cases of each test of MODULES and each instruction set, and how many more of the test that matters
# most. AddressSanitizer makes the kernels ten times as slow.
SAMPLE = {"address": 16, "undefined": 40}
MORE = {"test_against_reference": 12}
# What takes a minute or more with each: large work, and what is of no interest to it.
SLOW = {
    "address": (
        "core/test_subnormals.py",
        "core/test_blocks.py::test_python_threads",
        "core/test_blocks.py::test_torch",
        "core/test_invariance.py::test_threads",
        "core/test_invariance.py::test_python_threads",
    ),
    "undefined": (),
}
# What no sanitized process can do: it keeps no blocks, takes memory of its own, and is slow. Wheels
# and benchmarks of such a build are of no interest.
LEFT_OUT = (
    "core/test_kept_memory.py", "core/test_guard_pages.py", "core/test_memory.py",
    "tools/test_packaging.py",
)  # fmt: skip
LEFT_OUT_TESTS = "not grow and not given_back and not arrays_of_their_own and not bench"

# Prefetches go past the ends of arrays on purpose. What `null`, `alignment` and `object-size` look
# at in every access takes gcc many minutes, and AddressSanitizer and the processor see the same.
FLAGS = {
    # Each check as a call: in line they are so many that gcc takes several times as long. Local
    # arrays are small and left to the other one.
    "address": "-fsanitize=address -fno-sanitize-address-use-after-scope "
    "--param asan-instrumentation-with-call-threshold=0 --param asan-stack=0",
    "undefined": "-fsanitize=undefined -fno-sanitize-recover=all "
    "-fno-sanitize=pointer-overflow,null,alignment,object-size",
}
COMPILER = """#!/bin/sh
# Other flags than setup.py's win by coming last. ISAs that cannot run here have empty tables.
for isa in {others}; do
  case "$*" in
    *isa/${{isa}}_f??.c*)
      table=rnnfast_$(echo "$*" | grep -o "${{isa}}_f[0-9]*" | head -1)
      while [ "$1" != -o ]; do shift; done
      echo "const char $table[999];" |
        gcc -fPIC -fvisibility=hidden -x c -c -o "$2" -
      exit ;;
  esac
done
exec gcc "$@" -O1 -g1 -fno-omit-frame-pointer -w {flags}
"""
OPTIONS = {
    # Blocks that were not written, or are free, are full of NaN.
    "ASAN_OPTIONS": "allocator_may_return_null=1:detect_stack_use_after_return=0:"
    "max_malloc_fill_size=268435456:malloc_fill_byte=255:max_free_fill_size=4096:free_fill_byte=255",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "PYTHONMALLOC": "malloc",
    "OPENBLAS_NUM_THREADS": "1",
}
OURS = re.compile(r"rnnfast_alloc|csrc/memory\.c")


def pytest_sessionfinish(session: object, exitstatus: int) -> None:
    """Write down how the tests ended. A process that a sanitizer ends does not come here."""
    Path(os.environ["RNNFAST_STATUS"]).write_text(str(int(exitstatus)))


def pytest_collection_modifyitems(config, items) -> None:  # type: ignore[no-untyped-def]
    """Keep some cases of each test and instruction set, the same ones in every run."""
    few = int(os.environ["RNNFAST_SAMPLE"])
    if not few:
        return
    tests: dict[tuple[str, str], list[object]] = {}
    for item in items:
        spec = getattr(item, "callspec", None)
        isa = spec.params.get("isa", "") if spec else ""
        tests.setdefault((item.nodeid.partition("[")[0], isa), []).append(item)
    chosen = {
        id(item)
        for (name, _), cases in tests.items()
        for item in random.Random(name).sample(cases, min(sample_of(name, few), len(cases)))
    }
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen])
    items[:] = [item for item in items if id(item) in chosen]


def sample_of(name: str, few: int) -> int:
    return few * MORE.get(name.rpartition("::")[2], 1)


def build(copy: Path, flags: str) -> None:
    """Build the extension in the copy of the checkout."""
    from rnnfast._core import config

    known = {path.stem.rpartition("_")[0] for path in (copy / "csrc" / "isa").glob("*.c")}
    others = " ".join(sorted(known - set(config.ISAS)))
    compiler = copy / "cc"
    compiler.write_text(COMPILER.format(others=others, flags=flags))
    compiler.chmod(0o755)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=copy, env=os.environ | {"CC": str(compiler)}, check=True)


def library(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True)
    return found.stdout.strip()


def tests(copy: Path, sanitizer: str, everything: bool) -> bool:
    """Run the tests in the copy; whether all passed and no sanitizer had anything to say."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-p", "sanitize", "-k", LEFT_OUT_TESTS]
    if everything:
        command += ["tests"]
        command += [f"--ignore=tests/{name}" for name in LEFT_OUT]
    else:
        command += [f"tests/{name}" for name in MODULES]
        command += [f"--deselect=tests/{name}" for name in SLOW[sanitizer]]
    env = os.environ | OPTIONS | {"PYTHONPATH": f"{copy}:{copy / 'tests' / 'helpers'}", "CI": "1"}
    env["RNNFAST_SAMPLE"] = "0" if everything else str(SAMPLE[sanitizer])
    status = copy / "status"
    env["RNNFAST_STATUS"] = str(status)
    if sanitizer == "address":
        env["LD_PRELOAD"] = f"{library('libasan.so')} {library('libstdc++.so.6')}"
        # Python itself leaks a little: what leaks is sorted out below, and fails nothing here. Both
        # options hold for AddressSanitizer too. So neither its exit code nor its output tells of an
        # error: the report does, and a status that was never written.
        env["LSAN_OPTIONS"] = f"exitcode=0:log_path={copy / 'report'}"
    ended = subprocess.run(command, cwd=copy, env=env).returncode == 0
    passed = ended and status.is_file() and status.read_text() == "0"
    found = reports(copy)
    print("\n\n".join(found[:10]))
    return passed and not found


def reports(copy: Path) -> list[str]:
    """What the sanitizers report: each error, and each block of our own that was lost."""
    text = "".join(path.read_text(errors="replace") for path in copy.glob("report.*"))
    errors = re.findall(r"==\d+==ERROR: AddressSanitizer.*?(?=\n==\d+==|\Z)", text, re.S)
    leaks = [r for r in re.split(r"\n\n", text) if "Direct leak" in r and OURS.search(r)]
    return ["\n".join(error.splitlines()[:30]) for error in errors] + leaks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="the whole suite")
    parser.add_argument("--only", choices=FLAGS, help="one of the sanitizers")
    arguments = parser.parse_args()
    for sanitizer in [arguments.only] if arguments.only else FLAGS:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "checkout")
            shutil.copytree(ROOT, copy, ignore=LITTER)
            build(copy, FLAGS[sanitizer])
            built = time.monotonic()
            passed = tests(copy, sanitizer, arguments.all)
        took = f"build {built - start:.0f} s, tests {time.monotonic() - built:.0f} s"
        print(f"{sanitizer}: {'passed' if passed else 'FAILED'} ({took})", flush=True)
        if not passed:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
