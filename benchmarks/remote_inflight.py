"""What 10,000 tasks under way at a provider cost the worker that follows them, and the provider.

    python benchmarks/remote_inflight.py [--tasks 10000] [--seconds 20] [--quick] [--json]

The worker is this process: RemoteBackend, its schedule, the adapter, and one poll for each task that waits as
a worker's does. The provider is another process that answers Runware's wire as fast as it can: it tells of
each task that it is not done, with progress that moves, and of each tenth of those that were looked at 20
times that it is. The baseline follows one task in the same way, in the same run. The claim: less than one
core for all of them.
"""

import argparse
import asyncio
import json
import resource
import ssl
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gateway.backends.base import RemoteTask, Rendered, RenderTask, Running  # noqa: E402
from gateway.backends.remote.backend import RemoteBackend  # noqa: E402
from gateway.backends.runware import Runware  # noqa: E402
from gateway.generation import SAMPLE_RATE, GenerationRequest  # noqa: E402

MODEL: Final = "ace-step-v1.5-turbo"
AIR: Final = "runware:ace-step@v1.5-turbo"
SUBMITS_AT_ONCE: Final = 16


class Figures(msgspec.Struct, kw_only=True):
    """Of one measurement."""

    tasks: int
    submit_seconds: float
    submit_cpu: float
    seconds: float
    cpu: float
    requests: int
    answers: int
    looks: int

    @property
    def cores(self) -> float:
        return self.cpu / self.seconds

    @property
    def age(self) -> float:
        """Seconds between two looks at one task, on average."""
        return self.tasks * self.seconds / max(1, self.looks)


def main(options: argparse.Namespace) -> None:
    tasks = 500 if options.quick else options.tasks
    seconds = 3.0 if options.quick else options.seconds
    with subprocess.Popen([sys.executable, __file__, "--provider"], stdout=subprocess.PIPE) as provider:
        try:
            assert provider.stdout is not None
            port = int(provider.stdout.readline())
            single = asyncio.run(measured(port, tasks=1, seconds=seconds))
            many = asyncio.run(measured(port, tasks=tasks, seconds=seconds))
        finally:
            provider.kill()
    if options.as_json:
        print(json.dumps({"remote_inflight": [msgspec.to_builtins(one) for one in (single, many)]}))
        return
    print(f"{'tasks':>8}{'submits/s':>11}{'CPU ms each':>13}{'cores':>9}{'requests/s':>12}{'s per look':>12}")
    for one in (single, many):
        print(
            f"{one.tasks:>8}{one.tasks / one.submit_seconds:>11.0f}{1000 * one.submit_cpu / one.tasks:>13.2f}"
            f"{one.cores:>9.3f}{one.requests / one.seconds:>12.1f}{one.age:>12.1f}"
        )
    print(
        f"{many.tasks} tasks take {many.cores:.2f} cores, {many.cpu / max(single.cpu, 1e-9):.0f} times one's"
    )
    assert many.cores < 1, "more than a core"


async def measured(port: int, *, tasks: int, seconds: float) -> Figures:
    """Submit all of them, let the first looks pass, then follow them for a while."""
    backend = RemoteBackend(
        Runware(
            api_key="key",
            base_url=f"http://127.0.0.1:{port}/v1",
            tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        ),
        models={MODEL: AIR},
        nano_per_second={MODEL: 100_000},
        brought=no_files,
        capacity=tasks,
    )
    began, busy = time.perf_counter(), cpu_seconds()
    turns = asyncio.Semaphore(SUBMITS_AT_ONCE)
    remotes = await asyncio.gather(*(submitted(backend, turns) for _ in range(tasks)))
    submit_seconds, submit_cpu = time.perf_counter() - began, cpu_seconds() - busy
    following = [asyncio.create_task(followed(backend, remote)) for remote in remotes]
    await asyncio.sleep(min(seconds, 10))
    before, began, busy = await counts(port), time.perf_counter(), cpu_seconds()
    await asyncio.sleep(seconds)
    cpu, took, after = cpu_seconds() - busy, time.perf_counter() - began, await counts(port)
    for task in following:
        task.cancel()
    ended = await asyncio.gather(*following, return_exceptions=True)
    for one in ended:
        if isinstance(one, Exception):
            raise one
    await backend.close()
    return Figures(
        tasks=tasks,
        submit_seconds=submit_seconds,
        submit_cpu=submit_cpu,
        seconds=took,
        cpu=cpu,
        requests=after["requests"] - before["requests"],
        looks=after["looks"] - before["looks"],
        answers=after["ended"] - before["ended"],
    )


async def submitted(backend: RemoteBackend, turns: asyncio.Semaphore) -> RemoteTask:
    task = RenderTask(
        job_id=uuid.uuid4(),
        organization_id=uuid.uuid4(),
        attempt=1,
        model=MODEL,
        test=False,
        request=GenerationRequest(prompt="a calm song", frames=60 * SAMPLE_RATE, seed=7),
    )
    async with turns:
        return await backend.submit(task, backend.intend(task))


async def followed(backend: RemoteBackend, remote: RemoteTask) -> None:
    """As a worker does it; what has ended is followed on as if it were new, so that their number stays."""
    while True:
        state = await backend.poll(remote)
        if isinstance(state, Rendered):
            backend.forget(remote)
            remote = await submitted(backend, asyncio.Semaphore(1))
        else:
            assert isinstance(state, Running), state


def no_files(*_: object, **__: object) -> Any:
    raise AssertionError


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def counts(port: int) -> dict[str, int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /counts HTTP/1.1\r\nconnection: close\r\n\r\n")
    _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return msgspec.json.decode(body, type=dict[str, int])


class Provider:
    """Runware's wire, as far as it is needed here."""

    def __init__(self, *, endless: bool) -> None:
        self._endless = endless
        self.looked: dict[str, int] = {}
        self.counts = {"requests": 0, "looks": 0, "ended": 0}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET"):
                    self._answer(writer, self.counts)
                    return
                length = next(
                    int(line[15:])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                asked = msgspec.json.decode(await reader.readexactly(length))
                self.counts["requests"] += 1
                self._answer(writer, {"data": [self._item(one) for one in asked]})
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _item(self, asked: dict[str, Any]) -> dict[str, Any]:
        ref = asked["taskUUID"]
        if asked["taskType"] == "audioInference":
            return {"taskType": "audioInference", "taskUUID": ref}
        self.counts["looks"] += 1
        looked = self.looked[ref] = self.looked.get(ref, 0) + 1
        item = {"taskType": "audioInference", "taskUUID": ref}
        if looked >= 20 and hash(ref) % 10 == 0 and not self._endless:
            self.counts["ended"] += 1
            url = f"https://files.example/{ref}.flac"
            return item | {"status": "success", "audioUUID": ref, "audioURL": url, "seed": 7, "cost": 0.006}
        return item | {"status": "processing", "progress": min(looked, 99)}

    def _answer(self, writer: asyncio.StreamWriter, body: Any) -> None:
        content = msgspec.json.encode(body)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)


async def provide(*, endless: bool) -> None:
    server = await asyncio.start_server(Provider(endless=endless).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--provider", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--endless", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.provider:
        asyncio.run(provide(endless=given.endless))
    else:
        main(given)
