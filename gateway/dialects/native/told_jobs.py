"""Jobs as webhooks tell of them: the object that `GET /v1/jobs/{job_id}` answers with."""

import uuid

import asyncpg
import msgspec

from gateway.dialects.native.render import JobRenderer
from gateway.jobs.job import UnreadableJob
from gateway.jobs.reading import read_own_job
from gateway.webhooks.sending import NotRenderable, Render


def job_rendering(pool: "asyncpg.Pool[asyncpg.Record]", renderer: JobRenderer, *, origin: str) -> Render:
    """With a link in place of base64 audio, which would make messages larger than receivers take."""

    async def render(job_id: uuid.UUID, organization_id: uuid.UUID) -> bytes:
        async with pool.acquire() as conn:
            try:
                job = await read_own_job(conn, organization_id, job_id)
            except UnreadableJob as error:
                raise NotRenderable(str(error)) from error
        if job is None:
            raise NotRenderable(f"there is no job {job_id.hex}")
        return msgspec.json.encode(await renderer.view(job, origin=origin, inline=False))

    return render
