"""No kernel reads or writes past an array, not even where nothing comes of it.

Arrays border on pages that nobody may touch. So do the kernels' own blocks, by a stand-in for
`posix_memalign` that is loaded before the C library.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rnnfast
from rnnfast._core import config

PACKAGE = Path(rnnfast.__file__).parents[1]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc's calls"
)

# Blocks end where their pages end, whatever alignment was asked for. None has the address of an
# earlier one, and what is free may not be touched. What was not written is NaN.
BLOCKS = """
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static const size_t SPACE = (size_t)64 << 30;
static char *space;
static atomic_size_t taken;
static uint32_t *pages; /* of the block that begins in a page */
static size_t page;

static void *map(size_t bytes, int access) {
  return mmap(NULL, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

__attribute__((constructor)) static void begin(void) {
  page = (size_t)sysconf(_SC_PAGESIZE);
  pages = map(SPACE / page * sizeof *pages, PROT_READ | PROT_WRITE);
  space = map(SPACE, PROT_NONE);
}

int posix_memalign(void **to, size_t alignment, size_t size) {
  const size_t n = (size + page) / page, at = atomic_fetch_add(&taken, (n + 1) * page);
  if (!page) return *to = __libc_memalign(alignment, size), *to ? 0 : ENOMEM;
  if (at + (n + 1) * page > SPACE) return ENOMEM;
  if (mprotect(space + at, n * page, PROT_READ | PROT_WRITE)) return ENOMEM;
  char *end = space + at + n * page, *block = end - size;
  memset(block, 0xff, size);
  pages[(size_t)(block - space) / page] = (uint32_t)((size_t)(end - block + page - 1) / page);
  *to = block;
  return 0;
}

void free(void *p) {
  char *block = p;
  if (!space || block < space || block >= space + SPACE) {
    __libc_free(p);
    return;
  }
  const size_t first = (size_t)(block - space) / page;
  mmap(space + first * page, pages[first] * page, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}
"""


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The stand-in, compiled; nothing where there is no compiler."""
    compiler = next(filter(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")), None)
    if compiler is None:
        return ""
    library = tmp_path_factory.mktemp("blocks") / "blocks.so"
    library.with_suffix(".c").write_text(BLOCKS)
    source = str(library.with_suffix(".c"))
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", source, "-o", str(library)], check=True)
    return str(library)


@pytest.mark.parametrize("edge", ["end", "start"])
@pytest.mark.parametrize("isa", config.ISAS)
def test_nothing_beyond_an_array_is_touched(isa: str, edge: str, blocks: str) -> None:
    program = Path(__file__).parents[1] / "helpers" / "guarded.py"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGE), str(program.parent)])}
    if edge == "end":
        env["LD_PRELOAD"] = blocks
    command = [sys.executable, "-P", str(program), edge, isa]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode != -signal.SIGSEGV, f"past an array in {last}"
    assert (done.returncode, last) == (0, ["all"]), done.stderr
    if edge == "end" and not blocks:
        pytest.skip("no compiler: the kernels' own blocks have no border")
