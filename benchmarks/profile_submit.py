"""Where the CPU time of a submit and of a read goes in the HTTP process, room by room.

    python benchmarks/profile_submit.py [--seconds 8] [--lines 15] [--only submits,reads] [--json]

The real process under real load, with a sampler inside. Not part of `make bench`: it explains a figure, it
is none.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.harness import stack
from benchmarks.harness.load import LoadProcess, Plan
from benchmarks.harness.report import aligned, parse_options
from benchmarks.harness.sampler import Findings
from benchmarks.harness.stack import HttpProcess, Server
from benchmarks.harness.traffic import read_requests, submit_requests

PARTS: Final = ("submits", "reads")
WARM_UP_SECONDS: Final = 1.0


def main() -> None:
    options = parse_options(__doc__, parts=PARTS, seconds=8, rounds=1, clients=64, lines=15)
    documents = {}
    with stack.postgres() as server, LoadProcess() as load:
        keys = stack.prepare_accounts(server.dsn, 1)
        for part in PARTS:
            findings, requests = profile(part, server, load, keys, options.seconds, options.clients)
            if part in options.only:
                documents[part] = msgspec.to_builtins(findings) | {"requests": requests}
                if not options.as_json:
                    sys.stdout.write(describe(part, findings, requests, options.lines))
    if options.as_json:
        sys.stdout.write(f"{msgspec.json.encode(documents).decode()}\n")


def profile(
    part: str, server: Server, load: LoadProcess, keys: list[str], seconds: float, clients: int
) -> tuple[Findings, int]:
    """The findings of one kind of request, and how many requests they are about."""
    target = server.home / f"{part}.json"
    command = ("-m", "benchmarks.harness.sampler", str(target), "serve")
    with stack.http_process(server, server.dsn, *command) as http:
        if part == "submits":
            requests, expected = submit_requests(keys), b"202"
        else:
            requests, expected = read_requests(server.dsn, keys[0]), b"200"
        plan = Plan(port=http.port, requests=requests, expected=expected, clients=clients, seconds=seconds)
        load.run(msgspec.structs.replace(plan, seconds=WARM_UP_SECONDS))
        switch(http)
        figures = load.run(plan)
        switch(http)
        if figures.first_failure:
            raise SystemExit(figures.first_failure)
    return msgspec.json.decode(Path(target).read_bytes(), type=Findings), figures.succeeded


def switch(http: HttpProcess) -> None:
    """Begin or end the looking."""
    os.kill(http.pid, signal.SIGUSR1)


def describe(part: str, findings: Findings, requests: int, lines: int) -> str:
    """Rooms, then single lines, each in microseconds per request."""
    used = findings.user_seconds + findings.system_seconds
    total = sum(findings.rooms.values())
    each_us = used / requests * 1e6
    rows = [["", "us each", "share", ""]]
    rows += [
        [room, f"{each_us * seconds / total:.1f}", f"{seconds / total:.0%}", ""]
        for room, seconds in findings.rooms.items()
    ]
    rows += [["", "", "", ""]]
    rows += [
        [line.room, f"{each_us * line.seconds / total:.1f}", "", line.place]
        for line in findings.lines[:lines]
    ]
    head = (
        f"\n{part}: {requests} requests, {each_us:.0f} us of CPU each, "
        f"{findings.system_seconds / used:.0%} of it in the kernel; {findings.looks} looks\n"
    )
    return head + aligned(rows)


if __name__ == "__main__":
    main()
