"""The table of the benchmarks: medians, ratios of the same round, and failures that nobody overlooks."""

import json

import pytest

from benchmarks.harness.report import Report, Sample


def new_report() -> Report:
    report = Report("Some figures")
    for theirs, mine in ((100.0, 200.0), (400.0, 200.0), (100.0, 150.0)):
        report.add("baseline", Sample(rate=theirs))
        report.add(
            "ours", Sample(rate=mine, p50_ms=1.5, failed=1, cpu_us={"HTTP": 70.0}), baseline="baseline"
        )
    return report


def test_a_line_is_divided_by_its_baseline_round_by_round() -> None:
    # A machine that is slow for one round is slow for both, which the ratio of two medians would hide.
    assert str(new_report().ratio("ours")) == "1.50 (0.50 to 2.00) of baseline"


def test_rates_are_medians_and_failures_are_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    new_report().show(as_json=True)
    _, ours = json.loads(capsys.readouterr().out)["lines"]
    assert (ours["rate"], ours["failed"], ours["cpu_us"]) == (200.0, 3, {"HTTP": 70.0})


def test_columns_stand_under_their_heads(capsys: pytest.CaptureFixture[str]) -> None:
    new_report().show(as_json=False)
    _, _, head, baseline, ours, *_ = capsys.readouterr().out.splitlines()
    assert head.index("HTTP us") + len("HTTP us") == ours.index("70") + len("70")
    assert baseline.index("100") == ours.index("200")


def test_a_failure_ends_a_benchmark_with_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    report = new_report()
    report.failure("HTTP/1.1 500")
    with pytest.raises(SystemExit, match="1"):
        report.show(as_json=False)
    assert "HTTP/1.1 500" in capsys.readouterr().err
