"""Memory of the HTTP process after a hundred thousand submits, which must stay below 200 MB.

    python benchmarks/memory.py [--submits 100000] [--quick] [--json]

Resident memory is read when the process has started, then after every tenth of the submits, so that a leak
shows as a slope, and after a rest; the baseline is the process before its first request.
"""

import time
from typing import Final

from benchmarks.harness import stack
from benchmarks.harness.cpu import peak_mib, resident_mib
from benchmarks.harness.load import LoadProcess, Plan
from benchmarks.harness.measure import Bench
from benchmarks.harness.report import Report, parse_options
from benchmarks.harness.traffic import submit_requests

LIMIT_MIB: Final = 200 * 1e6 / 2**20
STEPS: Final = 10
REST_SECONDS: Final = 2.0


def main() -> None:
    options = parse_options(__doc__, submits=100_000, accounts=1000)
    if options.quick:
        options.submits, options.accounts = min(options.submits, 2000), 50
    report = Report("Memory of the HTTP process")
    with stack.postgres() as server, LoadProcess() as load:
        bench = Bench(server, load, report)
        requests = submit_requests(stack.prepare_accounts(server.dsn, options.accounts))
        with stack.http_process(server, server.dsn) as http:
            sizes = [resident_mib(http.pid)]
            for _ in range(STEPS):
                plan = Plan(
                    port=http.port, requests=requests, expected=b"202", count=options.submits // STEPS
                )
                bench.run_http(f"POST, {options.accounts:,} accounts", http, plan)
                sizes.append(resident_mib(http.pid))
            time.sleep(REST_SECONDS)
            rested, peak = resident_mib(http.pid), peak_mib(http.pid)
    report.fact("MiB at the start", round(sizes[0], 1))
    report.fact(f"MiB after each {options.submits // STEPS:,}", [round(size, 1) for size in sizes[1:]])
    report.fact(f"MiB after {options.submits:,} submits, at rest", round(rested, 1))
    report.fact("MiB at the peak", round(peak, 1))
    report.fact("of the start", f"{rested / sizes[0]:.2f} (limit {LIMIT_MIB:.0f} MiB)")
    if rested > LIMIT_MIB:
        report.failure(f"the HTTP process needs {rested:.0f} MiB, more than {LIMIT_MIB:.0f}")
    report.show(as_json=options.as_json)


if __name__ == "__main__":
    main()
