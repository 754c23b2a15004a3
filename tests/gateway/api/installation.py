"""A gateway of the tests' own: its database, its HTTP process in this event loop, its customers."""

import asyncio
import contextlib
import hashlib
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import httpx
import msgspec

import billing
from gateway.app import create_app
from gateway.audio import CONTENT_TYPES
from gateway.auth.directory import KeyLimits, create_key, create_organization, create_project
from gateway.auth.keys import derive_pepper
from gateway.bootstrap import Live, open_http
from gateway.cli.http_server import Config, Server
from gateway.config_watch import bump_revision
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.ids import new_id, parse_id
from gateway.jobs import queue, settlement
from gateway.jobs.job import JobError, JobErrorCode, JobResult, Track
from gateway.settings import Settings, read_settings

SECRET: Final = "a secret of the tests, longer than thirty-two characters"
SONG: Final = b"fLaC" + bytes(range(256)) * 40
"""What stands in for a song where nobody listens."""


class Customer(msgspec.Struct, kw_only=True):
    """An organization with credit and keys, as the holder of one of them sees it."""

    live: Live
    http: httpx.AsyncClient
    organization_id: uuid.UUID
    live_key: str
    test_key: str

    def headers(self, key: str | None = None, **others: str) -> dict[str, str]:
        """Those of a request with that key, else with the live one."""
        return {"authorization": f"Bearer {key or self.live_key}", **others}

    async def submit(self, *, key: str | None = None, idempotency_key: str | None = None, **body: Any) -> Any:
        """POST a generation: by default five seconds of the sandbox."""
        headers = self.headers(key)
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
        body = {"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5} | body
        return await self.http.post("/v1/audio/generations", json=body, headers=headers)

    async def submitted(self, **options: Any) -> dict[str, Any]:
        """The job that such a POST makes."""
        answer = await self.submit(**options)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def get(self, path: str, *, key: str | None = None, **params: Any) -> httpx.Response:
        """GET with that key, else with the live one."""
        return await self.http.get(path, params=params or None, headers=self.headers(key))

    async def job(self, job_id: str, **options: Any) -> dict[str, Any]:
        """The job as it stands."""
        answer = await self.get(f"/v1/jobs/{job_id}", **options)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def stored(self, job: dict[str, Any]) -> GenerationRequest:
        """What the worker of that job will read."""
        text = await self.live.pool.fetchval("SELECT request FROM job WHERE id = $1", parse_id(job["id"]))
        return msgspec.json.decode(text, type=GenerationRequest)

    async def count_jobs(self) -> int:
        """Of all keys and states, straight from the table."""
        found = await self.live.pool.fetchval(
            "SELECT count(*) FROM job WHERE organization_id = $1", self.organization_id
        )
        return int(found)

    async def key(self, *, test: bool = False, project_id: uuid.UUID | None = None, **limits: Any) -> str:
        """Another key of this organization."""
        return (await self.key_with_id(test=test, project_id=project_id, **limits))[1]

    async def key_with_id(
        self, *, test: bool = False, project_id: uuid.UUID | None = None, **limits: Any
    ) -> tuple[uuid.UUID, str]:
        """Another key of this organization, and its id."""
        async with self.live.pool.acquire() as conn, conn.transaction():
            return await create_key(
                conn,
                pepper=derive_pepper(SECRET),
                organization_id=self.organization_id,
                name="another key",
                test=test,
                project_id=project_id,
                limits=KeyLimits(**limits),
            )

    async def project(self, name: str) -> uuid.UUID:
        """A project of this organization."""
        async with self.live.pool.acquire() as conn:
            return await create_project(conn, organization_id=self.organization_id, name=name)


class Installation(msgspec.Struct, kw_only=True):
    """A running HTTP process and its database, without any worker."""

    dsn: str
    settings: Settings
    live: Live
    http: httpx.AsyncClient

    async def customer(self, *, usd: str = "5") -> Customer:
        """A new organization with that much credit and two keys."""
        pepper = derive_pepper(SECRET)
        async with self.live.pool.acquire() as conn, conn.transaction():
            organization_id = await create_organization(conn, name="Customer")
            if amount_nano := billing.parse_usd(usd):
                await billing.grant(conn, account_id=organization_id, amount_nano=amount_nano, reason="test")
            keys = [
                (
                    await create_key(
                        conn, pepper=pepper, organization_id=organization_id, name="first", test=test
                    )
                )[1]
                for test in (False, True)
            ]
        return Customer(
            live=self.live,
            http=self.http,
            organization_id=organization_id,
            live_key=keys[0],
            test_key=keys[1],
        )

    async def finish(
        self,
        job_id: str,
        *,
        error: JobErrorCode | None = None,
        data: bytes = SONG,
        frames: Sequence[int] | None = None,
    ) -> None:
        """End a job as a worker would, with files that are no music, or with an error.

        `frames`: of each of them, where they are not as long as was ordered.
        """
        await self.end(await self.claim(job_id), error=error, data=data, frames=frames)

    async def end(
        self,
        claim: queue.Claim,
        *,
        error: JobErrorCode | None = None,
        data: bytes = SONG,
        frames: Sequence[int] | None = None,
        cost_nano: int | None = None,
    ) -> None:
        """The same with a job that was claimed before; `cost_nano`: what its provider charges."""
        ending = settlement.Ending(
            job_id=claim.job_id,
            fence=claim.fence,
            cost_nano=cost_nano,
            result=None if error else await self._deliver(claim, data, frames),
            error=JobError(code=error, message="it was meant to fail") if error else None,
        )
        async with asyncio.timeout(10):
            (ended,) = await settlement.finish(self.live.pool, [ending], retry=False)
        assert ended.won

    async def claim(self, job_id: str) -> queue.Claim:
        """Take this one job from the queue; the others stay."""
        wanted = parse_id(job_id)
        async with self.live.pool.acquire() as conn, conn.transaction():
            # A queue of its own: what other tests have claimed and left is queued again where it was.
            mine = f"only {job_id}"
            await conn.execute("UPDATE job SET queue = $2 WHERE id = $1 AND status = 'queued'", wanted, mine)
            claims = await queue.claim(conn, worker_id=new_id(), queues=[mine], backend="engine", limit=1)
        assert [claim.job_id for claim in claims] == [wanted]
        return claims[0]

    async def _deliver(self, claim: queue.Claim, data: bytes, frames: Sequence[int] | None) -> JobResult:
        request = claim.request
        path = self.settings.home / "song"
        path.write_bytes(data)
        tracks = []
        for index, length in enumerate(frames or [request.frames] * request.n):
            key = f"{claim.organization_id.hex}/{claim.job_id.hex}/{claim.attempt}-{index}.{request.format}"
            await self.live.store.put_file(key, path, CONTENT_TYPES[request.format])
            track = Track(
                key=key,
                master_key=key,
                format=request.format.value,
                content_type=CONTENT_TYPES[request.format],
                frames=length,
                master_sample_rate=SAMPLE_RATE,
                sample_rate=SAMPLE_RATE,
                channels=2,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                seed=request.variation_seed(index),
                file_name=f"song-{index + 1}.{request.format}",
            )
            tracks.append(track)
        return JobResult(tracks=tuple(tracks), deterministic=True)


def facts_of(job: dict[str, Any]) -> dict[str, Any]:
    """A job object without its estimates, which another job may change at any moment."""
    return {name: value for name, value in job.items() if name not in {"queue_position", "eta_seconds"}}


def settings_for(dsn: str, home: Path, **more: str) -> Settings:
    """As the operator of such an installation would have set them."""
    return read_settings(
        {
            "ANTIPHON_HOME": str(home),
            "ANTIPHON_DATABASE_URL": dsn,
            "ANTIPHON_SECRET_KEY": SECRET,
            **more,
        }
    )


@contextlib.asynccontextmanager
async def running(dsn: str, home: Path, **more: str) -> AsyncIterator[Installation]:
    """The HTTP process of an installation, in this event loop, on a free port of the loopback."""
    settings = settings_for(dsn, home, **more)
    async with open_http(settings) as live, _served(live) as base_url:
        async with live.pool.acquire() as conn, conn.transaction():
            await billing.seed_prices(conn, live.catalog.seed_prices())
            await bump_revision(conn)
            # Tests change rows by hand: the check of every minute would rightly stop the gateway.
            await conn.execute("UPDATE ledger_watch SET checked_at = '2999-01-01'")
        async with httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=20) as http:
            yield Installation(dsn=dsn, settings=settings, live=live, http=http)


def listening() -> socket.socket:
    """On a free port. Without a named protocol asyncio leaves Nagle's algorithm on: 40 ms an answer."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@contextlib.asynccontextmanager
async def _served(live: Live) -> AsyncIterator[str]:
    with listening() as listener:
        port = listener.getsockname()[1]
        server = Server(Config(create_app(live)), on_exit=live.job_watch.stop)
        with mock.patch.object(server, "capture_signals", contextlib.nullcontext):
            serving = asyncio.create_task(server.serve([listener]))
            while not server.started:
                assert not serving.done()
                await asyncio.sleep(0.005)
            yield f"http://127.0.0.1:{port}"
            server.handle_exit(signal.SIGTERM, None)
            await serving
