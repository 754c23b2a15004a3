"""One line of a table: a load on the HTTP process, or a baseline, with the CPU time that it took."""

from benchmarks.harness import baseline
from benchmarks.harness.cpu import measured
from benchmarks.harness.load import Load, LoadProcess, Plan
from benchmarks.harness.report import Report, Sample
from benchmarks.harness.stack import HttpProcess, Server


class Bench:
    """Runs loads against one server's processes and reports them."""

    def __init__(self, server: Server, load: LoadProcess, report: Report) -> None:
        self._server = server
        self._load = load
        self._report = report

    def run_http(self, line: str, http: HttpProcess, plan: Plan, *, against: str | None = None) -> Load:
        """One sample of a line; `against` is the line of its baseline."""
        with measured({"HTTP": http.pid, "Postgres": self._server.pid}) as cpu:
            load = self._load.run(plan)
        cpu.seconds["load"] = load.cpu_seconds
        self._report.failure(load.first_failure)
        sample = Sample(
            rate=load.rate,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            failed=load.failed,
            cpu_us=cpu.microseconds_each(load.succeeded),
            others=cpu.others,
        )
        self._report.add(line, sample, baseline=against)
        return load

    def run_pgbench(self, line: str, script: str, seconds: float) -> None:
        """One sample of a baseline."""
        figures = baseline.run(self._server, script, seconds)
        sample = Sample(
            rate=figures.rate,
            p50_ms=figures.p50_ms,
            p99_ms=figures.p99_ms,
            cpu_us=figures.cpu.microseconds_each(figures.transactions),
            others=figures.cpu.others,
        )
        self._report.add(line, sample)

    def warm_up(self, plan: Plan) -> None:
        """Fill the caches of the process; nothing is reported but failures."""
        self._report.failure(self._load.run(plan).first_failure)
