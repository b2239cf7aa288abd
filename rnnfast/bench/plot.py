"""Figure of one record: share of the machine's peak, speed-up over each library."""

from __future__ import annotations

from typing import Any

from .cases import CELLS, DIRECTIONS, SHAPES
from .report import NAMES, Record, machine_line, peers_of, speedups

CELL_COLOURS = {"rnn": "#c9bfe3", "gru": "#8a76bd", "lstm": "#41296b"}
PEER_STYLES = {
    "numpy": ("o", "#777777"),
    "torch": ("s", "#ee6677"),
    "onnxruntime": ("^", "#4477aa"),
    "jax": ("D", "#ccaa22"),
    "openvino": ("v", "#228833"),
}


def plot(record: Record, path: str) -> None:
    """Save the figure of `record` under `path`; its suffix chooses the format.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = record["settings"]
    cells = [c for c in CELLS if c in settings["cells"]]
    directions = [d for d in DIRECTIONS if d in settings["directions"]]
    shapes = [s for s in SHAPES if s in settings["shapes"]]
    rows = 1 + (len(cells) if peers_of(record) else 0)
    figure = Figure(figsize=(6.5 * len(directions), 1.0 + 2.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(directions), squeeze=False, sharey="row")
    for column, direction in enumerate(directions):
        share_of_peak(axes[0, column], record, cells, shapes, direction)
        for row, cell in enumerate(cells[: rows - 1], 1):
            speedup(axes[row, column], record, cell, shapes, direction)
    for row in axes[:, 1:]:
        for axis in row:
            axis.set_ylabel("")
    handles = {line.get_label(): line for axis in axes[1:].flat for line in axis.lines[1:]}
    if handles:
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
    figure.suptitle(machine_line(record), fontsize=8, wrap=True)
    figure.savefig(path, dpi=130)


def share_of_peak(axis: Any, record: Record, cells: list[str], shapes: list[str], way: str) -> None:
    """Bars: per cent of the measured peak by shape and cell."""
    width = 0.8 / len(cells)
    for i, cell in enumerate(cells):
        values = {
            r["shape"]: r["percent_of_peak"]
            for r in record["results"]
            if (r["library"], r["cell"], r["direction"]) == ("rnnfast", cell, way)
        }
        x = [k + (i - (len(cells) - 1) / 2) * width for k in range(len(shapes))]
        heights = [values.get(shape, 0) for shape in shapes]
        axis.bar(x, heights, width, color=CELL_COLOURS[cell], label=cell.upper())
    axis.set_title(f"{way}: rnnfast against the machine's peak", fontsize=10)
    axis.set_ylabel("% of multiply-add peak")
    axis.set_ylim(0, 118)  # room for the legend above 100
    axis.set_yticks(range(0, 101, 20))
    label_shapes(axis, shapes)
    axis.legend(fontsize=8, loc="upper center", ncols=len(cells))


def speedup(axis: Any, record: Record, cell: str, shapes: list[str], way: str) -> None:
    """Lines on a logarithmic axis: time of each library over time of rnnfast."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axhline(1, color="black", lw=0.8)
    for peer in peers_of(record):
        ratios = speedups(record, peer)
        points = [
            (k, ratios[shape, cell, way])
            for k, shape in enumerate(shapes)
            if (shape, cell, way) in ratios
        ]
        if points:
            marker, colour = PEER_STYLES[peer]
            x, y = zip(*points, strict=True)
            axis.plot(x, y, marker, ls="-", lw=1, color=colour, label=NAMES[peer])
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_title(f"{cell.upper()} {way}: speed-up of rnnfast over", fontsize=10)
    axis.set_ylabel("their time / rnnfast's")
    label_shapes(axis, shapes)


def label_shapes(axis: Any, shapes: list[str]) -> None:
    """Names of the shapes along the horizontal axis."""
    axis.set_xticks(range(len(shapes)), shapes, fontsize=9)
    axis.set_xlim(-0.6, len(shapes) - 0.4)
    axis.grid(axis="y", lw=0.4, alpha=0.6)
    axis.set_axisbelow(True)
