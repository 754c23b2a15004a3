"""Which workers are there: for readiness, forecasts, refusals; not for leases, which stand on the jobs."""

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

import billing

GONE_SECONDS: Final = 60
"""A restart of the only worker must not make the gateway look broken: its jobs wait safely."""
ALIVE_SECONDS: Final = 10
"""Whoever was not seen for so long is not counted on: its leases have lapsed too."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker says of one model that it has, or tries to have, in memory."""

    model: str
    state: str
    """`loading`, `ready` or `failed`."""
    warm: bool = False
    load_seconds: float | None = None
    realtime_factor: float | None = None
    """Seconds of audio for each second of work."""
    longest_seconds: float | None = None
    """The longest song that fits into the device's memory."""
    reads_codes: bool = True
    """Whether its weights came with the audio tokenizers that covers and plans need."""
    error: str | None = None


async def note_alive(
    conn: billing.Connection,
    worker_id: uuid.UUID,
    queues: Sequence[str],
    *,
    capacity: int,
    models: Sequence[LoadedModel] = (),
) -> None:
    """This worker is there and takes up to `capacity` jobs at once; rows of workers that left are removed."""
    await conn.execute(
        """
        WITH gone AS (DELETE FROM worker WHERE seen_at < now() - make_interval(secs => $4))
        INSERT INTO worker (id, queues, capacity, models) VALUES ($1, $2, $3, $5::text::jsonb)
        ON CONFLICT (id) DO UPDATE
           SET seen_at = now(), queues = excluded.queues, models = excluded.models
        """,
        worker_id,
        queues,
        capacity,
        GONE_SECONDS,
        msgspec.json.encode(models).decode(),
    )


async def note_left(conn: billing.Connection, worker_id: uuid.UUID) -> None:
    """This worker has ended in order."""
    await conn.execute("DELETE FROM worker WHERE id = $1", worker_id)


async def served_queues(conn: billing.Connection) -> frozenset[str]:
    """Queues that some worker served within the last minute."""
    rows = await conn.fetch(
        """
        SELECT DISTINCT unnest(queues) AS queue
          FROM worker WHERE seen_at > now() - make_interval(secs => $1)
        """,
        GONE_SECONDS,
    )
    return frozenset(row["queue"] for row in rows)


async def loaded_models(conn: billing.Connection) -> Mapping[str, LoadedModel]:
    """Of each model the worker that can do most: ready before loading before failed, then by longest song."""
    rows = await conn.fetch(
        "SELECT models::text FROM worker WHERE seen_at > now() - make_interval(secs => $1)", GONE_SECONDS
    )
    best: dict[str, LoadedModel] = {}
    for row in rows:
        for loaded in _told(row["models"]):
            known = best.get(loaded.model)
            if known is None or _rank(loaded) > _rank(known):
                best[loaded.model] = loaded
    return best


def _told(models: str) -> Sequence[LoadedModel]:
    """What a worker of another version tells may be no news to us; that must stop nobody."""
    try:
        return msgspec.json.decode(models, type=list[LoadedModel])
    except msgspec.ValidationError:
        return ()


def _rank(loaded: LoadedModel) -> tuple[bool, bool, bool, float, bool]:
    return (
        loaded.state == "ready",
        loaded.state == "loading",
        loaded.reads_codes,
        math.inf if loaded.longest_seconds is None else loaded.longest_seconds,
        loaded.warm,
    )
