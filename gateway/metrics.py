"""What the books and the job table say at one moment, for Prometheus: the same in every process."""

from collections.abc import Callable, Iterable, Iterator

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import billing
from gateway.jobs.tally import (
    AttemptTally,
    Backlog,
    Margin,
    Tally,
    read_attempt_tallies,
    read_backlogs,
    read_margins,
    read_tallies,
)
from gateway.jobs.workforce import Workforce, read_workforce
from gateway.routing import Circuit, RouteHealth, model_of
from gateway.webhooks.totals import WebhookTotal, read_webhook_totals

_BREAKER = {Circuit.CLOSED: 0, Circuit.HALF_OPEN: 1, Circuit.OPEN: 2}


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """All that was read, in one snapshot."""

    totals: billing.Totals
    tallies: list[Tally]
    attempts: list[AttemptTally]
    margins: list[Margin]
    backlogs: list[Backlog]
    workforce: Workforce
    webhooks: list[WebhookTotal]


async def read_stored(conn: billing.Connection) -> Stored:
    """The caller holds a transaction in which nothing changes."""
    return Stored(
        totals=await billing.read_totals(conn),
        tallies=await read_tallies(conn),
        attempts=await read_attempt_tallies(conn),
        margins=await read_margins(conn),
        backlogs=await read_backlogs(conn),
        workforce=await read_workforce(conn),
        webhooks=await read_webhook_totals(conn),
    )


class StoredMetrics(Collector):
    """The same in Prometheus' words."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def collect(self) -> Iterator[Metric]:
        """Money, jobs, attempts, queues, backends, webhooks."""
        yield from _money(self._stored.totals)
        yield from _margins(self._stored.margins)
        yield from _jobs(self._stored.tallies)
        yield from _attempts(self._stored.attempts)
        yield from _queues(self._stored.backlogs)
        yield from _engines(self._stored.workforce)
        yield from _providers(self._stored.workforce.health.values())
        yield from _webhooks(self._stored.webhooks)


def _money(totals: billing.Totals) -> Iterator[Metric]:
    yield CounterMetricFamily("antiphon_revenue_nanousd", "Charged to customers.", value=totals.revenue_nano)
    yield GaugeMetricFamily("antiphon_held_nanousd", "Held for unfinished jobs.", value=totals.held_nano)
    yield GaugeMetricFamily(
        "antiphon_hold_oldest_age_seconds", "Age of the oldest open hold.", value=totals.oldest_hold_seconds
    )
    yield CounterMetricFamily(
        "antiphon_provider_cost_nanousd",
        "Charged to us by providers, or perhaps charged.",
        value=totals.provider_cost_nano,
    )
    low = GaugeMetricFamily(
        "antiphon_low_balance_accounts", "Accounts below a threshold of theirs.", labels=["level"]
    )
    low.add_metric(["low"], totals.low_accounts)
    low.add_metric(["critical"], totals.critical_accounts)
    yield low
    yield GaugeMetricFamily(
        "antiphon_ledger_violation",
        "Violations of the ledger that were found and not settled yet.",
        value=totals.violations,
    )


def _margins(margins: Iterable[Margin]) -> Iterator[Metric]:
    labels = ["model", "backend"]
    told: list[tuple[str, str, Callable[[Margin], int]]] = [
        ("antiphon_route_revenue_nanousd", "Charged to customers.", lambda one: one.revenue_nano),
        ("antiphon_route_cost_nanousd", "Charged to us.", lambda one: one.cost_nano),
        (
            "antiphon_route_possible_cost_nanousd",
            "Perhaps charged to us: nobody knows.",
            lambda one: one.possible_cost_nano,
        ),
    ]
    for name, words, value in told:
        counter = CounterMetricFamily(name, words, labels=labels)
        for margin in margins:
            counter.add_metric([margin.model, margin.backend], value(margin))
        yield counter


def _jobs(tallies: Iterable[Tally]) -> Iterator[Metric]:
    jobs = CounterMetricFamily("antiphon_jobs", "Finished jobs.", labels=["model", "backend", "outcome"])
    seconds: dict[tuple[str, str], int] = {}
    for tally in tallies:
        jobs.add_metric([tally.model, tally.backend, tally.outcome], tally.jobs)
        pair = (tally.model, tally.backend)
        seconds[pair] = seconds.get(pair, 0) + tally.audio_ms
    audio = CounterMetricFamily("antiphon_audio_seconds", "Delivered audio.", labels=["model", "backend"])
    for pair, milliseconds in seconds.items():
        audio.add_metric(list(pair), milliseconds / 1000)
    yield jobs
    yield audio


def _attempts(tallies: Iterable[AttemptTally]) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "antiphon_attempts", "Ended attempts at backends.", labels=["backend", "result"]
    )
    ambiguous = 0
    for tally in tallies:
        attempts.add_metric([tally.backend, tally.result], tally.attempts)
        ambiguous += tally.attempts if tally.result == "ambiguous" else 0
    yield attempts
    yield CounterMetricFamily(
        "antiphon_attempt_ambiguous",
        "Attempts of which nobody knows whether they were taken.",
        value=ambiguous,
    )


def _queues(backlogs: Iterable[Backlog]) -> Iterator[Metric]:
    """By model: which of its routes a job waits for changes."""
    depths: dict[str, int] = {}
    ages: dict[str, float] = {}
    for backlog in backlogs:
        model = model_of(backlog.queue)
        depths[model] = depths.get(model, 0) + backlog.depth
        ages[model] = max(ages.get(model, 0.0), backlog.oldest_seconds)
    depth = GaugeMetricFamily("antiphon_queue_depth", "Jobs that wait.", labels=["model"])
    age = GaugeMetricFamily(
        "antiphon_queue_oldest_age_seconds", "Age of the oldest waiting job.", labels=["model"]
    )
    for model, count in depths.items():
        depth.add_metric([model], count)
        age.add_metric([model], ages[model])
    yield depth
    yield age


def _engines(workforce: Workforce) -> Iterator[Metric]:
    """Where several workers have a model, of the one that can do most."""
    labels = ["backend", "model"]
    factor = GaugeMetricFamily(
        "antiphon_realtime_factor", "Seconds of audio for each second of work, lately.", labels=labels
    )
    warm = GaugeMetricFamily("antiphon_model_warm", "1: the next song waits for nothing.", labels=labels)
    for name, loaded in workforce.models.items():
        warm.add_metric(["engine", name], loaded.warm)
        if loaded.realtime_factor is not None:
            factor.add_metric(["engine", name], loaded.realtime_factor)
    yield factor
    yield warm


def _providers(told: Iterable[RouteHealth]) -> Iterator[Metric]:
    """In the eyes of the worker with which each fares best."""
    labels = ["backend", "model"]
    breaker = GaugeMetricFamily(
        "antiphon_breaker_state", "0: closed, 1: one job tries it, 2: open.", labels=labels
    )
    errors = GaugeMetricFamily(
        "antiphon_backend_error_ratio",
        "Share of the latest attempts that failed by its fault.",
        labels=labels,
    )
    latency = GaugeMetricFamily(
        "antiphon_backend_latency_seconds", "From submit to music, lately, in the middle.", labels=labels
    )
    running = GaugeMetricFamily("antiphon_backend_running", "Tasks under way.", labels=labels)
    balances: dict[str, int] = {}
    broke: dict[str, bool] = {}
    for route in told:
        pair = [route.backend, route.model]
        breaker.add_metric(pair, _BREAKER[route.circuit])
        errors.add_metric(pair, route.error_rate)
        running.add_metric(pair, route.running)
        if route.latency_seconds is not None:
            latency.add_metric(pair, route.latency_seconds)
        if route.balance_nano is not None:
            balances[route.backend] = route.balance_nano
        broke[route.backend] = broke.get(route.backend, False) or route.no_credit
    yield from (breaker, errors, latency, running)
    balance = GaugeMetricFamily(
        "antiphon_provider_balance_nanousd", "What our account there holds.", labels=["backend"]
    )
    for backend, nano in balances.items():
        balance.add_metric([backend], nano)
    yield balance
    no_credit = GaugeMetricFamily(
        "antiphon_provider_no_credit", "1: it serves nothing until an operator pays.", labels=["backend"]
    )
    for backend, is_broke in broke.items():
        no_credit.add_metric([backend], is_broke)
    yield no_credit


def _webhooks(totals: Iterable[WebhookTotal]) -> Iterator[Metric]:
    """Deliveries and uploads together, as their results are."""
    sums: dict[str, int] = {}
    for total in totals:
        sums[total.result] = sums.get(total.result, 0) + total.total
    counter = CounterMetricFamily("antiphon_webhook_out", "What was sent to customers.", labels=["result"])
    for result, count in sums.items():
        counter.add_metric([result], count)
    yield counter
