"""How long audio is kept, where it lies, and when it is gone. A job's row stays; a file's goes with it."""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec

import billing
from gateway.files.store import UnneededFile

RETENTION: Final = timedelta(days=30)
"""From the end of the job; `expires_at` tells the customer."""

ADMITTING: Final = timedelta(minutes=10)
"""More than lies between the look for a file and the commit of the job that is submitted with it."""


class ExpiredJob(msgspec.Struct, frozen=True):
    """A job whose files are due."""

    id: uuid.UUID
    organization_id: uuid.UUID

    @property
    def folder(self) -> str:
        """Where all files of the job lie in the audio store."""
        return audio_folder(self.organization_id, self.id)


def audio_folder(organization_id: uuid.UUID, job_id: uuid.UUID) -> str:
    """The key prefix of everything that any attempt of the job has stored."""
    return f"{organization_id.hex}/{job_id.hex}"


async def find_expired(conn: billing.Connection, *, limit: int) -> list[ExpiredJob]:
    """Ended jobs whose retention is over and whose files were not deleted yet, oldest first."""
    rows = await conn.fetch(
        """
        SELECT id, organization_id FROM job
         WHERE audio_deleted_at IS NULL AND expires_at < now()
         ORDER BY expires_at LIMIT $1
        """,
        limit,
    )
    return [ExpiredJob(*row) for row in rows]


async def note_deleted(conn: billing.Connection, ids: Sequence[uuid.UUID]) -> None:
    """Their files are gone."""
    await conn.execute("UPDATE job SET audio_deleted_at = now() WHERE id = ANY($1)", ids)


async def find_unneeded_files(conn: billing.Connection, *, limit: int) -> list[UnneededFile]:
    """Uploaded files that have expired or were deleted, oldest first, but for those that a job waits for.

    A job is submitted only with a file that has not expired. So what expired a while ago is needed by no
    job that is still to come, and by those alone that name it and have not ended.
    """
    rows = await conn.fetch(
        """
        SELECT id, organization_id, container FROM file
         WHERE expires_at < now() - $2::interval
           AND NOT EXISTS (
               SELECT FROM job
                WHERE job.organization_id = file.organization_id AND status IN ('queued', 'processing')
                  AND replace(file.id::text, '-', '') IN (request #>> '{source_audio,file_id}',
                                                          request #>> '{reference_audio,file_id}'))
         ORDER BY expires_at LIMIT $1
        """,
        limit,
        ADMITTING,
    )
    return [UnneededFile(*row) for row in rows]
