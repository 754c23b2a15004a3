"""Options that every benchmark has, and its table: medians over the rounds, ratios with their spread."""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

COLUMNS: Final = ("HTTP", "lanes", "Postgres", "worker", "load")
"""Whose CPU time may be shown, in this order."""
LEGEND: Final = (
    "us: CPU time of the process for each request; others: share of the cores that processes beside ours "
    "used;\nratio: median of the rounds (lowest to highest)\n"
)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one line, in one round."""

    rate: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    failed: int = 0
    cpu_us: dict[str, float] = {}
    """CPU time per request, by process."""
    others: float | None = None
    """Share of all cores that other processes used, 0 to 1."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """A line divided by its baseline, in each round."""

    baseline: str
    values: list[float]

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{statistics.median(self.values):.2f} ({low:.2f} to {high:.2f}) of {self.baseline}"


class Report:
    """Samples of named lines, gathered round by round and printed at the end."""

    def __init__(self, benchmark: str, *, unit: str = "per second") -> None:
        self._benchmark = benchmark
        self._unit = unit
        self._samples: dict[str, list[Sample]] = {}
        self._baselines: dict[str, str] = {}
        self._facts: dict[str, Any] = {}
        self._failures: list[str] = []

    def add(self, line: str, sample: Sample, *, baseline: str | None = None) -> None:
        """One more sample of a line; with a baseline, samples of the same round are divided."""
        self._samples.setdefault(line, []).append(sample)
        if baseline is not None:
            self._baselines[line] = baseline
        _progress(f"{line}: {sample.rate:.0f}")

    def fact(self, name: str, value: Any) -> None:
        """A single figure that stands below the table."""
        self._facts[name] = value
        _progress(f"{name}: {value}")

    def failure(self, what: str) -> None:
        """What went wrong first; it is printed and ends the benchmark with status 1."""
        if what:
            self._failures.append(what)

    @property
    def lines(self) -> list[str]:
        """Their names, in the order in which they came."""
        return list(self._samples)

    def rate(self, line: str) -> float:
        """Median over the rounds."""
        return _median(self._samples[line]).rate

    def ratio(self, line: str) -> Ratio | None:
        """None for a baseline."""
        if (baseline := self._baselines.get(line)) is None:
            return None
        pairs = zip(self._samples[line], self._samples[baseline], strict=True)
        return Ratio(baseline=baseline, values=[mine.rate / theirs.rate for mine, theirs in pairs])

    def show(self, *, as_json: bool) -> None:
        """Print everything; exits with status 1 if anything failed."""
        sys.stdout.write(f"{json.dumps(self._document())}\n" if as_json else self._text())
        sys.stdout.flush()
        for what in self._failures:
            sys.stderr.write(f"failed: {what}\n")
        if self._failures:
            raise SystemExit(1)

    def _document(self) -> dict[str, Any]:
        return {
            "benchmark": self._benchmark,
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "unit": self._unit,
            "lines": [
                {
                    "line": line,
                    **msgspec.to_builtins(_median(samples)),
                    "rounds": len(samples),
                    "ratio": msgspec.to_builtins(self.ratio(line)),
                }
                for line, samples in self._samples.items()
            ],
            "facts": self._facts,
            "failures": self._failures,
        }

    def _text(self) -> str:
        shown = [name for name in COLUMNS if any(name in s[0].cpu_us for s in self._samples.values())]
        cpu = [f"{name} us" for name in shown]
        rows = [["", self._unit, "p50 ms", "p99 ms", "failed", *cpu, "others", "ratio"]]
        for line, samples in self._samples.items():
            median = _median(samples)
            ratio = self.ratio(line)
            rows.append(
                [
                    line,
                    f"{median.rate:.0f}" if median.rate >= 100 else f"{median.rate:.2f}",
                    _or_nothing(median.p50_ms, ".1f"),
                    _or_nothing(median.p99_ms, ".1f"),
                    str(median.failed),
                    *(_or_nothing(median.cpu_us.get(name), ".0f") for name in shown),
                    _or_nothing(median.others, ".0%"),
                    "" if ratio is None else str(ratio),
                ]
            )
        facts = "".join(f"{name}: {value}\n" for name, value in self._facts.items())
        return f"\n{self._benchmark}\n{aligned(rows)}{facts}{LEGEND}"


def parse_options(
    description: str, *, parts: Sequence[str] = (), seconds: float | None = None, rounds: int = 1, **more: int
) -> argparse.Namespace:
    """The options of a benchmark; `more` are extra integer options with their defaults.

    All take all options, so that one command line fits them; what means nothing to one is not shown.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    length = f"of each measurement; default {seconds:g}" if seconds else argparse.SUPPRESS
    parser.add_argument("--seconds", type=float, help=length)
    parser.add_argument("--rounds", type=int, help=f"how often all of them are repeated; default {rounds}")
    some = f"some of {','.join(parts)}" if parts else argparse.SUPPRESS
    parser.add_argument("--only", type=_names(parts), default=list(parts), help=some)
    parser.add_argument("--quick", action="store_true", help="a smoke run: short, small, once")
    parser.add_argument("--json", action="store_true", dest="as_json", help="one JSON object on stdout")
    for name, value in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything is stopped
    options.seconds = options.seconds or (1.0 if options.quick else seconds or 0.0)
    options.rounds = options.rounds or (1 if options.quick else rounds)
    return options


def _names(parts: Sequence[str]) -> Any:
    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(parts):
            raise argparse.ArgumentTypeError(f"no {min(unknown)!r}: choose from {', '.join(parts)}")
        return names

    return read


def _median(samples: Sequence[Sample]) -> Sample:
    """Of each figure by itself; failures are added up."""
    return Sample(
        rate=statistics.median(s.rate for s in samples),
        p50_ms=_median_or_none([s.p50_ms for s in samples]),
        p99_ms=_median_or_none([s.p99_ms for s in samples]),
        failed=sum(s.failed for s in samples),
        cpu_us={name: statistics.median(s.cpu_us[name] for s in samples) for name in samples[0].cpu_us},
        others=_median_or_none([s.others for s in samples]),
    )


def _median_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _or_nothing(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """The first and the last column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *numbers, last = row
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells, last]).rstrip())
    return "\n".join(lines) + "\n"


def _progress(text: str) -> None:
    """On a terminal, what was measured just now."""
    if sys.stderr.isatty():
        sys.stderr.write(f"  {text}\n")
