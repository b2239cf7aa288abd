"""The figures on the pages are those of the records."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from rnnfast.bench import report
from rnnfast.bench.cases import DIRECTIONS, SHAPES

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


@pytest.mark.parametrize(("title", "lines"), list(TABLES.claims({"results": claims()})))
def test_the_page_on_performance_has_the_tables_of_the_record(title: str, lines: list[str]) -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    if title == "goals":  # the page has one more column, for the second machine
        assert all(f"\n{line}" in page for line in lines[2:])
    elif title == "memory":  # the page has what the note says
        [growth] = [r for r in claims() if r["what"].startswith("per further row")]
        sizes = [part.split(" at ")[0] for part in growth["note"].split("; ")[1].split(", ")]
        assert TABLES.row("rnnfast", *sizes) in page
    else:
        assert "\n".join(lines) in page


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
