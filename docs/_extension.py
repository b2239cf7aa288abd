"""What Sphinx needs to make a site of pages that are plain Markdown for readers of the repository.

- The pages of a section are those that the first column of its tables links to.
- Files outside docs/ are shown as pages, and links to them lead there.
- Names such as `rnnfast.load` in a page are links to the reference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import _MockObject
from sphinx.util import inspect

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SECTIONS = ("index", "howto", "guide", "demos/README", "contributors")
OUTSIDE = {  # pages of the site, and the files that they show
    "benchmarks": "benchmarks/README.md",
    "changes": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "kernels": "csrc/README.md",
    "results": "benchmarks/results.md",
    "security": "SECURITY.md",
}
PAGES = {file: DOCS / f"{page}.md" for page, file in OUTSIDE.items()}
PAGES |= {f"rnnfast/{page.stem}.py": page for page in (DOCS / "api").glob("*.rst")}

CHILD = re.compile(r"^\| \[[^\]]+\]\(([^):#]+)\) \|", re.MULTILINE)
LINK = re.compile(r"\[([^\[\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
NAME = re.compile(r"((?:rnnfast|cells|functional|training)(?:\.\w+)+)(?:\(.*\))?")


def prepare(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the file that a page shows in its place, adapt links, and add the list of children."""
    path = DOCS / f"{page}.md"
    if not path.exists():
        return
    text, folder = source[0], path.parent
    if page in OUTSIDE:
        file = ROOT / OUTSIDE[page]
        app.env.note_dependency(str(file))
        text, folder = file.read_text(encoding="utf-8"), file.parent
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [LINK.sub(lambda m: link(m, folder, path.parent), part) for part in parts[::2]]
    source[0] = "".join(parts)
    if page in SECTIONS:
        children = CHILD.findall(source[0])
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", "", *children, "```", ""])


def link(match: re.Match[str], folder: Path, new_folder: Path) -> str:
    """A link in a file of `folder`, for a page of `new_folder`."""
    text, target, anchor = match[1], (folder / match[2]).resolve(), match[3] or ""
    if target.is_dir() or target == ROOT / "README.md":  # nothing of the site
        return text
    if target.is_relative_to(ROOT):
        target = PAGES.get(target.relative_to(ROOT).as_posix(), target)
    return f"[{text}]({Path(os.path.relpath(target, new_folder)).as_posix()}{anchor})"


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Turn code that is a public name into a link."""
    page = app.env.current_document.docname
    for code in list(doctree.findall(nodes.literal)):
        match = NAME.fullmatch(code.astext())
        if match and not isinstance(code.parent, nodes.reference | addnodes.pending_xref):
            target = match[1] if match[1].startswith("rnnfast") else f"rnnfast.{match[1]}"
            reference = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refexplicit=True, refdoc=page
            )
            code.replace_self(reference)
            reference += code


def leave_unknown(
    app: Sphinx, env: Any, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Code in backticks that names nothing is no link. `training.fit` is short for the full name.

    A name that begins with rnnfast and is not there is an error.
    """
    target = node["reftarget"]
    if node["reftype"] != "obj" or target.startswith("rnnfast."):
        return None
    found = env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", f"rnnfast.{target}", node, content
    )
    return found if "." in target and found else content


def signature_of(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str, result: str
) -> tuple[str, str] | None:
    """The arguments of a class whose base is mocked, which would hide them."""
    if what != "class" or arguments != "(*args, **kwargs)":
        return None
    found = inspect.signature(thing.__init__, bound_method=True)
    return inspect.stringify_signature(found, show_annotation=False), result


def setup(app: Sphinx) -> dict[str, Any]:
    _MockObject.__or__ = lambda self, other: self  # `Tensor | None` where PyTorch is not installed
    app.connect("source-read", prepare)
    app.connect("doctree-read", link_names)
    app.connect("autodoc-process-signature", signature_of)
    app.connect("missing-reference", leave_unknown)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
