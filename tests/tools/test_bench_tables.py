"""The figures on the pages are those of the records."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from rnnfast.bench import report
from rnnfast.bench.cases import CELLS, DIRECTIONS, SHAPES

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "benchmarks" / "records"


def tables() -> Any:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = tables()


def claims() -> list[dict[str, Any]]:
    """The claims of the first machine that has some."""
    paths = [RECORDS / f"{name}-claims.json" for name in TABLES.MACHINES]
    record = json.loads(next(path for path in paths if path.exists()).read_text())
    return list(record["results"])


def record(threads: int) -> report.Record:
    return report.load(str(RECORDS / f"{TABLES.MACHINE}-{threads}.json"))


def words(page: str) -> str:
    return " ".join((ROOT / page).read_text().split())


def test_the_page_of_results_is_made_of_the_records() -> None:
    assert (ROOT / "benchmarks" / "results.md").read_text() == TABLES.page() + "\n"


def test_the_readme_has_the_table_of_the_record() -> None:
    assert "\n".join(TABLES.glance(record(1))) in (ROOT / "README.md").read_text()


def test_the_readme_has_the_means_and_the_least_of_the_record() -> None:
    means, least = [], []
    ratios = report.speedups(record(1), "fastest")
    for direction in DIRECTIONS:
        values = [v for (_, _, way), v in ratios.items() if way == direction]
        means.append(f"{report.geometric_mean(values):.2f}")
        least.append(f"{min(values):.2f}")
    text = words("README.md")
    assert f"the fastest library: {means[0]} forward, {means[1]} in training" in text
    assert f"least {least[0]} and {least[1]}" in text
    assert f"{record(1)['peak_gflops']['one_core']:.0f} GFLOP/s" in text


def test_the_first_page_s_shares_of_the_peak_are_those_of_the_record() -> None:
    assert sum(B >= 16 for _, B, _, _ in SHAPES.values()) == 5
    results = [r for r in record(1)["results"] if r["library"] == "rnnfast" and r["B"] >= 16]
    shares = [r["percent_of_peak"] for r in results]
    text = f"reaches {min(shares):.0f} to {max(shares):.0f} per cent of its multiply-add limit"
    assert text in words("README.md")


def test_the_first_page_s_price_of_unequal_lengths_is_that_of_the_record() -> None:
    dense = [r for r in claims() if r["what"].endswith("time over dense")]
    low, high = (round(100 * f(r["measured"] for r in dense)) for f in (min, max))
    share = dense[0]["note"].partition(" ")[0]
    text = f"{share} per cent of the steps take {low} to {high} per cent of the time"
    assert text in words("README.md")


PERFORMANCE_MACHINE = "epyc-zen4"  # of the page on performance


def claim(group: str, what: str) -> dict[str, Any]:
    record = json.loads((RECORDS / f"{PERFORMANCE_MACHINE}-claims.json").read_text())
    [result] = [r for r in record["results"] if (r["group"], r["what"]) == (group, what)]
    return dict(result)


def between(values: list[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def test_the_page_on_performance_has_the_shares_of_the_peak_of_the_record() -> None:
    rows = report.load(str(RECORDS / f"{PERFORMANCE_MACHINE}-1.json"))["results"]
    mine = [r for r in rows if r["library"] == "rnnfast"]
    many = [r["percent_of_peak"] for r in mine if r["B"] >= 16]
    long = [r["percent_of_peak"] for r in mine if r["shape"] == "long"]
    text = words("docs/performance.md")
    assert f"{between(many, 0)} % of the core's peak" in text
    assert f"{between(long, 0)} % of the peak" in text


def test_the_page_on_performance_has_the_claims_of_the_record() -> None:
    text = words("docs/performance.md")
    small, wide = (claim("stream", f"stream.step LSTM {case}") for case in ("1->32", "128->128"))
    assert f"{small['measured']:.3g} µs for an LSTM with 1 input and 32 units" in text
    assert f"{wide['measured']:.3g} µs with 128 and 128" in text
    run = claim("stream", "stream.run LSTM 1->32, per step")
    assert f"{run['measured']:.3g} ns for a step of an LSTM with 32 units" in text
    memory = claim("memory", "LSTM step 50 64 512 512, over PyTorch")
    mine, other = memory["note"].split(", PyTorch ")
    assert f"adds {mine} to the resident memory; PyTorch's adds {other}." in text
    for shape in ("small", "medium", "large"):
        factors = (claim("modules", f"{shape} {cell.upper()}")["measured"] for cell in CELLS)
        assert TABLES.row(shape, *(f"{factor:.2f} x" for factor in factors)) in text


def test_the_page_on_performance_has_the_ranges_of_the_record() -> None:
    record = json.loads((RECORDS / f"{PERFORMANCE_MACHINE}-claims.json").read_text())
    groups = {r["group"]: [] for r in record["results"]}
    for result in record["results"]:
        groups[result["group"]].append(result)
    text = words("docs/performance.md")
    large = [r for r in groups["threads"] if r["what"].split()[0] in ("large", "xl", "xxl")]
    assert f"reach {between([r['measured'] for r in large], 2)} times the speed" in text
    halves = [r["measured"] for r in groups["float64"]]
    assert f"{between(halves, 2)} of the speed of float32" in text
    dense = [r for r in groups["lengths"] if r["what"].endswith("time over dense")]
    share = dense[0]["note"].partition(" ")[0]
    times = between([100 * r["measured"] for r in dense], 0)
    assert f"{share} % of the steps take {times} % of the time" in text


def test_it_prints_every_group() -> None:
    page = TABLES.page()
    for name in TABLES.MACHINES:
        assert f"## {name}\n" in page
    for path in RECORDS.glob("*-[12].json"):
        assert "\n".join(TABLES.libraries(report.load(str(path)))) in page
    for title, lines in TABLES.claims({"results": claims()}):
        assert f"### {title}\n" in page
        assert "\n".join(lines) in page


@pytest.mark.parametrize(
    ("us", "text"),
    [(0.497, "0.497 µs"), (999.4, "999 µs"), (1280.0, "1.28 ms"), (1.18e6, "1.18 s")],
)
def test_durations(us: float, text: str) -> None:
    assert TABLES.duration(us) == text


def test_what_misses_its_goal_is_in_italics() -> None:
    entries = [TABLES.two_digits({"measured": 0.914, "met": met}) for met in (True, False, None)]
    assert entries == ["0.91", "*0.91*", "0.91"]
