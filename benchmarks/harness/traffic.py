"""The requests of the benchmarks, as bytes made beforehand."""

from typing import Final

import asyncpg
import uvloop

from benchmarks.harness.load import get, post

SUBMIT: Final = "/v1/audio/generations"
READ_JOBS: Final = 1000
BODY: Final = b'{"model":"sandbox","prompt":"lo-fi house, soft piano","audio_duration":10,"format":"mp3"}'


def submit_requests(keys: list[str], body: bytes = BODY) -> list[bytes]:
    """One for each key."""
    return [post(SUBMIT, key, body) for key in keys]


def read_requests(dsn: str, key: str, *, status: str = "queued") -> list[bytes]:
    """Reads of up to READ_JOBS jobs of the key's organization, from all over its history."""
    return [get(f"/v1/jobs/{job_id}", key) for job_id in uvloop.run(_some_jobs(dsn, key, status))]


async def _some_jobs(dsn: str, key: str, status: str) -> list[str]:
    conn = await asyncpg.connect(dsn)
    try:
        rows = await conn.fetch(
            """
            SELECT j.id FROM job j JOIN api_key k ON k.organization_id = j.organization_id
             WHERE k.prefix = left($1, length(k.prefix)) AND j.status = $2
             ORDER BY md5(j.id::text) LIMIT $3
            """,
            key,
            status,
            READ_JOBS,
        )
    finally:
        await conn.close()
    if not rows:
        raise LookupError("there is no job to read")
    return [row[0].hex for row in rows]
