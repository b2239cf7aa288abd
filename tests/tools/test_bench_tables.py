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
CLAIMS = [
    json.loads((RECORDS / f"{machine}-claims.json").read_text())
    for machine in (TABLES.MACHINE, TABLES.OTHER)
]


def record(threads: int) -> report.Record:
    return report.load(str(RECORDS / f"{TABLES.MACHINE}-{threads}.json"))


def test_the_readme_has_the_table_of_the_record() -> None:
    assert "\n".join(TABLES.libraries(record(1))) in (ROOT / "README.md").read_text()


def test_the_readme_has_the_means_and_the_least_of_the_records() -> None:
    words = " ".join((ROOT / "README.md").read_text().split())
    means, least = [], []
    for threads in (1, 2):
        ratios = report.speedups(record(threads), "fastest")
        for direction in DIRECTIONS:
            values = [v for (_, _, way), v in ratios.items() if way == direction]
            means.append(f"{report.geometric_mean(values):.2f}")
            least.append(f"{min(values):.2f}")
    assert f"the fastest library: {means[0]} forward, {means[1]} in training;" in words
    assert f"{means[2]} and {means[3]}." in words
    assert f"least {least[0]} and {least[1]}, on two cores {least[2]} and {least[3]}." in words


def test_the_first_page_s_shares_of_the_peak_are_those_of_the_records() -> None:
    words = " ".join((ROOT / "README.md").read_text().split())
    for machine, text in (
        (TABLES.MACHINE, "a core of a Zen 4 reaches {} to {} per cent of its multiply-add limit"),
        (TABLES.OTHER, "a core of a Xeon {} to {}."),
    ):
        assert sum(B >= 16 for _, B, _, _ in SHAPES.values()) == 5
        results = report.load(str(RECORDS / f"{machine}-1.json"))["results"]
        shares = [
            r["percent_of_peak"] for r in results if r["library"] == "rnnfast" and r["B"] >= 16
        ]
        assert text.format(round(min(shares)), round(max(shares))) in words
    dense = [r for r in CLAIMS[0]["results"] if r["what"].endswith("time over dense")]
    low, high = (round(100 * f(r["measured"] for r in dense)) for f in (min, max))
    share = dense[0]["note"].partition(" ")[0]
    text = f"{share} per cent of the steps take {low} to {high} per cent of the time"
    assert text in words


@pytest.mark.parametrize("title", [title for title, _ in TABLES.claims(*CLAIMS)])
def test_the_page_on_performance_has_the_tables_of_the_record(title: str) -> None:
    lines = dict(TABLES.claims(*CLAIMS))[title]
    page = (ROOT / "docs" / "performance.md").read_text()
    if title == "memory":  # there the page has what the notes say
        [growth] = [r for r in CLAIMS[0]["results"] if r["what"].startswith("per further row")]
        sizes = [part.split(" at ")[0] for part in growth["note"].split("; ")[1].split(", ")]
        assert TABLES.row("rnnfast", *sizes) in page
    else:
        assert "\n".join(lines) in page


def test_it_prints_all_tables(capsys: pytest.CaptureFixture[str]) -> None:
    TABLES.main(str(RECORDS / TABLES.MACHINE))
    out = capsys.readouterr().out
    assert "\n".join(TABLES.libraries(record(2))) in out
    assert all("\n".join(lines) in out for _, lines in TABLES.claims(*CLAIMS))


@pytest.mark.parametrize(
    ("us", "text"),
    [(0.497, "0.497 µs"), (999.4, "999 µs"), (1280.0, "1.28 ms"), (1.18e6, "1.18 s")],
)
def test_durations(us: float, text: str) -> None:
    assert TABLES.duration(us) == text


def test_what_misses_its_goal_is_in_italics() -> None:
    entries = [TABLES.two_digits({"measured": 0.914, "met": met}) for met in (True, False, None)]
    assert entries == ["0.91", "*0.91*", "0.91"]
