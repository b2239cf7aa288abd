"""What the benchmark says of its records: the table, the comparison, the figure."""

from __future__ import annotations

import re
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rnnfast.bench import report, run
from rnnfast.bench.cases import CELLS, DIRECTIONS, SHAPES, all_cases


def made_up(
    factor: float = 1.0,
    peers: dict[str, float] | None = None,
    spreads: dict[tuple[str, str, str, str], float] | None = None,
) -> dict[str, Any]:
    """A record in which rnnfast takes 10 us (times `factor`) and each peer a multiple of that.

    With `spreads` it has rounds, apart by 10 % where nothing else is said.
    """
    peers = {"numpy": 8.0, "torch": 2.0, "onnxruntime": 4.0} if peers is None else peers
    results = []
    for i, case in enumerate(all_cases(CELLS, SHAPES, DIRECTIONS, "float32")):
        for library, ratio in {"rnnfast": 1.0, **peers}.items():
            if library == "onnxruntime" and case.direction == "training":
                continue
            us = 10.0 * factor * ratio * (1 + i)
            rates = {"gflops": case.flops / us / 1e3, "percent_of_peak": 12.5}
            entry = {**asdict(case), "library": library, "us": us, **rates}
            if spreads is not None:
                spread = spreads.get((case.shape, case.cell, case.direction, library), 0.1)
                entry |= {"rounds_us": [us, us * (1 + spread)], "spread": spread}
            results.append(entry)
    return {
        "schema": 1,
        "machine": {"cpu": "A CPU", "isa": "avx2", "compiler": "GCC 12", "python": "3.12.1"}
        | {"versions": {"rnnfast": "1.0", "numpy": "2.0"}},
        "settings": asdict(run.Settings(threads=2, libraries=("rnnfast", *peers))),
        "peak_gflops": {"one_core": 50.0, "all_threads": 100.0},
        "results": results,
        "skipped": [{"library": "torch", "reason": "wrong result: y differs", "shape": "xl"}],
    }


def test_speedups_and_means() -> None:
    record = made_up()
    assert list(report.speedups(record, "numpy").values()) == pytest.approx([8.0] * 54)
    assert list(report.speedups(record, "fastest").values()) == pytest.approx([2.0] * 54)
    forward_only = {(*case, "forward"): 4.0 for case in product(SHAPES, CELLS)}
    assert report.speedups(record, "onnxruntime") == pytest.approx(forward_only)
    slow = made_up(peers={"numpy": 0.5, "jax": 3.0})
    ratios = report.speedups(slow, "fastest")
    assert list(ratios.values()) == pytest.approx([0.5] * 54), "NumPy counts"
    assert report.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert report.geometric_mean([]) is None


def test_table_has_every_case_in_aligned_columns() -> None:
    text = report.table(made_up())
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert [block[0].partition(":")[0] for block in blocks[:9]] == list(SHAPES)
    assert blocks[4][0] == "medium: T 64, B 32, I 128, H 128"
    for title, *rows in blocks[:10]:
        ends = [[m.end() for m in re.finditer(r"\S+( \S+)*", row)][2:] for row in rows]
        starts = [[m.start() for m in re.finditer(r"\S+( \S+)*", row)][:2] for row in rows]
        assert len(rows) in (7, 9), title
        assert all(end == ends[0] for end in ends), title
        assert all(start == starts[0] for start in starts), title
    assert blocks[0][1].split("  ")[0] == "cell"
    assert re.search(r"^all +forward +8.00x +2.00x +4.00x +2.00x$", text, re.M)
    assert re.search(r"^all +training +8.00x +2.00x +- +2.00x$", text, re.M)
    assert "not timed: PyTorch: xl: wrong result: y differs" in text
    assert text.splitlines()[-1] == (
        "A CPU, 2 threads, avx2, GCC 12, Python 3.12.1, rnnfast 1.0, NumPy 2.0"
    )


def test_table_without_peers() -> None:
    text = report.table(made_up(peers={}))
    assert "fastest" not in text
    assert "speed-up" not in text
    assert "12.5" in text


def test_a_narrow_table_shows_the_spread_of_every_row() -> None:
    peers = {"numpy": 8.0, "torch": 2.0}
    text = report.table(made_up(peers=peers, spreads={("tiny", "gru", "forward", "numpy"): 0.299}))
    assert max(map(len, text.splitlines())) <= 100
    heads = [line for line in text.splitlines() if line.startswith("cell")]
    assert heads[0].endswith("  spread")
    rows = [line for line in text.splitlines() if re.match(r"(rnn|gru|lstm) .*%$", line)]
    assert len(rows) == 54
    assert [row.split()[-2:] for row in rows].count(["10", "%"]) == 53
    assert [row.split()[-2:] for row in rows].count(["30", "%"]) == 1
    assert "!" not in text
    assert "busy" not in text


def test_rows_whose_rounds_disagree_are_marked_and_the_end_says_so() -> None:
    spreads = {
        ("tiny", "gru", "forward", "rnnfast"): 0.301,
        ("xl", "rnn", "training", "torch"): 1.5,
        ("xl", "rnn", "training", "rnnfast"): 0.4,
    }
    text = report.table(made_up(spreads=spreads))
    marked = [line for line in text.splitlines() if "!" in line and line.startswith(CELLS)]
    assert [line.split()[:2] for line in marked] == [["gru", "forward"], ["rnn", "training"]]
    assert [line.split()[-3:] for line in marked] == [["!", "30", "%"], ["!", "150", "%"]]
    end = text.splitlines()[-3:]
    assert end[0].startswith(
        "NOT RELIABLE: in 2 of 54 rows, marked !, rounds differ by more than 30 %"
    )
    assert "most of all by 150 %: xl rnn training, PyTorch." in end[1]
    assert "busy" in end[2]
    assert max(map(len, end)) <= 100


def test_a_wide_table_shows_a_spread_only_where_it_is_too_large() -> None:
    peers = {"numpy": 8e4, "torch": 2e4, "onnxruntime": 4e4, "jax": 3e4, "openvino": 9e4}
    calm = report.table(made_up(peers=peers, spreads={}))
    assert "spread" not in calm
    busy = report.table(made_up(peers=peers, spreads={("step", "rnn", "forward", "jax"): 0.8}))
    head, first, second = busy.splitlines()[1:4]
    assert head.endswith("  spread")
    assert first.endswith("  ! 80 %")
    assert len(second) < len(first)
    assert second.endswith("x")
    assert "NOT RELIABLE: in 1 of 54 rows" in busy


def test_of_one_round_and_of_old_records_no_spread_is_known() -> None:
    record = made_up(spreads={})
    for entry in record["results"]:
        entry |= {"rounds_us": [entry["us"]], "spread": 0.0}
    assert "spread" not in report.table(record)
    assert "spread" not in report.table(made_up())


def test_compare_marks_what_either_record_cannot_tell() -> None:
    where = "step", "gru", "forward", "numpy"
    calm, busy = made_up(spreads={}), made_up(spreads={where: 0.9})
    assert "!" not in report.compare(calm, calm)
    assert "spread" not in report.compare(made_up(), made_up())
    for a, b, name in ((calm, busy, "B"), (busy, calm, "A")):
        text = report.compare(a, b)
        marked = [line for line in text.splitlines() if "!" in line and line.startswith("step")]
        assert [line.split()[:3] for line in marked] == [["step", "gru", "forward"]]
        assert marked[0].endswith("1.00x  ! 90 %")
        assert f"\n{name}: NOT RELIABLE: in 1 of 54 rows" in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.1234, "0.12"), (12.34, "12.3"), (4321.9, "4322")]
)
def test_number(value: float | None, text: str) -> None:
    assert report.number(value) == text


def test_compare_shows_the_change_and_the_drift() -> None:
    before, after = made_up(), made_up(factor=0.5, peers={"numpy": 16.0})
    text = report.compare(before, after)
    assert re.search(r"^step +rnn +forward +10.0 +5.00 +2.00x$", text, re.M)
    assert text.endswith("rnnfast  2.00x\nNumPy    1.00x")
    after["results"] = []
    assert report.compare(before, after) == "the two records have no case in common"


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[1]", "schema 1"), ('{"schema": 2}', "schema 1")],
)
def test_load_refuses_what_is_no_record(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        report.load(str(path))


def test_a_record_has_a_line_for_each_result(tmp_path: Path) -> None:
    """Differences of two records can be read, and nothing is lost."""
    record = {"schema": 1, "machine": {"cpu": "é"}, "results": [{"us": 1.5}, {"us": None}]}
    text = report.dumps(record)
    assert text.splitlines()[-4:] == ['  {"us": 1.5},', '  {"us": null}', " ]", "}"]
    path = tmp_path / "record.json"
    for some in (record, record | {"results": [], "skipped": {}}):
        path.write_text(report.dumps(some))
        assert report.load(str(path)) == some


@pytest.mark.parametrize("peers", [None, {}])
def test_plot(peers: dict[str, float] | None, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    from rnnfast.bench.plot import plot

    path = tmp_path / "figure.svg"
    plot(made_up(peers=peers), str(path))
    words = set(re.findall("<!-- (.*?) -->", path.read_text()))  # matplotlib names its texts so
    assert {"% of multiply-add peak", "xxl", "LSTM"} <= words
    drawn = {"NumPy", "PyTorch", "ONNX Runtime", "their time / rnnfast's"} & words
    assert len(drawn) == (4 if peers is None else 0)


def test_the_figure_has_the_record_s_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    from matplotlib.figure import Figure

    from rnnfast.bench.plot import plot

    drawn: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **options: drawn.append(figure))
    record = made_up(peers={"numpy": 8.0, "jax": 0.5})
    for k, result in enumerate(record["results"]):
        result["percent_of_peak"] = float(k)
    plot(record, "unused.png")
    [figure] = drawn
    for column, direction in enumerate(DIRECTIONS):
        share, *speeds = figure.axes[column::2]
        for cell, bars in zip(CELLS, share.containers, strict=True):
            wanted = [
                r["percent_of_peak"]
                for r in record["results"]
                if (r["library"], r["cell"], r["direction"]) == ("rnnfast", cell, direction)
            ]
            assert [bar.get_height() for bar in bars] == wanted
            assert bars.get_label() == cell.upper()
        for cell, axis in zip(CELLS, speeds, strict=True):
            assert axis.get_title().startswith(f"{cell.upper()} {direction}")
            lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines[1:]}
            assert lines == {
                "NumPy": pytest.approx([8.0] * 9),
                "JAX": pytest.approx([0.5] * 9),
            }


def test_the_fastest_is_chosen_case_by_case_among_all_libraries() -> None:
    record = made_up(peers={"numpy": 8.0, "torch": 2.0, "jax": 4.0})
    for result in record["results"]:
        if (result["shape"], result["library"]) == ("step", "numpy"):
            result["us"] /= 16
    ratios = report.speedups(record, "fastest")
    for (shape, _, _), ratio in ratios.items():
        assert ratio == pytest.approx(0.5 if shape == "step" else 2.0)
    text = report.table(record)
    mean = report.number((0.5 * 2**8) ** (1 / 9), "x")
    assert re.search(rf"^all +forward .* {mean}$", text, re.M)
    assert re.search(r"^cell .* vs NumPy +vs fastest$", text, re.M)


@pytest.mark.parametrize("name", ["epyc-zen4-1", "epyc-zen4-2", "xeon-avx512-1", "xeon-avx512-2"])
def test_records_of_earlier_versions_can_still_be_read(name: str) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "records" / f"{name}.json"
    record = report.load(str(path))
    assert "vs fastest" in report.table(record)
    assert "1.00x" in report.compare(record, record)
