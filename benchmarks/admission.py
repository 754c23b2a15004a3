"""Durable admission and reads over HTTP, each against pgbench running what it comes down to.

    python benchmarks/admission.py [--seconds 5] [--rounds 3] [--quick] [--only submits,reads] [--json]

Everything runs here: Postgres (fsync on), the HTTP process and the load share this machine's cores, so
read ratios and CPU times rather than rates. No worker runs: queued jobs stay queued.
"""

from argparse import Namespace
from typing import Final

from benchmarks.harness import baseline, stack
from benchmarks.harness.load import LoadProcess, Plan
from benchmarks.harness.measure import Bench
from benchmarks.harness.report import Report, parse_options
from benchmarks.harness.stack import HttpProcess
from benchmarks.harness.traffic import read_requests, submit_requests

PARTS: Final = ("submits", "reads")
WARM_UP_SECONDS: Final = 1.0
WRITE_BASELINE: Final = f"pgbench, one-row transaction, {baseline.CLIENTS} clients"
READ_BASELINE: Final = f"pgbench, select of one row, {baseline.CLIENTS} clients"


def main() -> None:
    options = parse_options(__doc__, parts=PARTS, seconds=5, rounds=3, clients=64, accounts=1000)
    report = Report("Admission and reads")
    with stack.postgres() as server, LoadProcess() as load:
        bench = Bench(server, load, report)
        keys = stack.prepare_accounts(server.dsn, 50 if options.quick else options.accounts)
        baseline.prepare_writes(server.dsn)
        with stack.http_process(server, server.dsn) as http:
            warm_up(bench, http, keys)
            baseline.prepare_reads(server.dsn)
            reads = read_requests(server.dsn, keys[0])
            for _ in range(options.rounds):
                if "submits" in options.only:
                    compare_submits(bench, http, keys, options)
                if "reads" in options.only:
                    compare_reads(bench, http, reads, options)
    report.show(as_json=options.as_json)


def warm_up(bench: Bench, http: HttpProcess, keys: list[str]) -> None:
    """Fill the caches; the first account then has jobs to read."""
    for some in (keys, keys[:1]):
        requests = submit_requests(some)
        bench.warm_up(Plan(port=http.port, requests=requests, expected=b"202", seconds=WARM_UP_SECONDS))


def compare_submits(bench: Bench, http: HttpProcess, keys: list[str], options: Namespace) -> None:
    """The baseline, one hot account, many accounts."""
    bench.run_pgbench(WRITE_BASELINE, baseline.WRITE, options.seconds)
    for some in (keys[:1], keys):
        accounts = "1 account" if len(some) == 1 else f"{len(some):,} accounts"
        plan = Plan(
            port=http.port,
            requests=submit_requests(some),
            expected=b"202",
            clients=options.clients,
            seconds=options.seconds,
        )
        bench.run_http(f"POST /v1/audio/generations, {accounts}", http, plan, against=WRITE_BASELINE)


def compare_reads(bench: Bench, http: HttpProcess, requests: list[bytes], options: Namespace) -> None:
    """The baseline, then reads of many jobs of one account."""
    bench.run_pgbench(READ_BASELINE, baseline.READ, options.seconds)
    plan = Plan(
        port=http.port,
        requests=requests,
        expected=b"200",
        clients=options.clients,
        seconds=options.seconds,
    )
    bench.run_http("GET /v1/jobs/{id}", http, plan, against=READ_BASELINE)


if __name__ == "__main__":
    main()
