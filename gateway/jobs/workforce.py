"""Which workers are there, and how they and their backends fare: for readiness, forecasts, routes, refusals.

Not for leases, which stand on the jobs.
"""

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

import billing
from gateway.routing import Circuit, RouteHealth

GONE_SECONDS: Final = 60
"""A restart of the only worker must not make the gateway look broken: its jobs wait safely."""
ALIVE_SECONDS: Final = 10
"""Whoever was not seen for so long is not counted on: its leases have lapsed too."""


_Told = TypeVar("_Told")


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
    routes: Sequence[RouteHealth] = (),
) -> None:
    """This worker is there and takes up to `capacity` jobs at once; rows of workers that left are removed."""
    await conn.execute(
        """
        WITH gone AS (DELETE FROM worker WHERE seen_at < now() - make_interval(secs => $4))
        INSERT INTO worker (id, queues, capacity, models, routes)
        VALUES ($1, $2, $3, $5::text::jsonb, $6::text::jsonb)
        ON CONFLICT (id) DO UPDATE
           SET seen_at = now(), queues = excluded.queues, models = excluded.models, routes = excluded.routes
        """,
        worker_id,
        queues,
        capacity,
        GONE_SECONDS,
        msgspec.json.encode(models).decode(),
        msgspec.json.encode(routes).decode(),
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


class Workforce(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers together can do."""

    models: Mapping[str, LoadedModel] = {}
    """By public id, of each the worker that can do most."""
    health: Mapping[tuple[str, str], RouteHealth] = {}
    """By backend and model, in the eyes of the worker with which it fares best."""


async def read_workforce(conn: billing.Connection) -> Workforce:
    """What the workers of the last minute have told."""
    rows = await conn.fetch(
        """
        SELECT models::text, routes::text
          FROM worker WHERE seen_at > now() - make_interval(secs => $1)
        """,
        GONE_SECONDS,
    )
    models: dict[str, LoadedModel] = {}
    health: dict[tuple[str, str], RouteHealth] = {}
    for row in rows:
        for loaded in _told(row["models"], _MODELS):
            known = models.get(loaded.model)
            if known is None or _rank(loaded) > _rank(known):
                models[loaded.model] = loaded
        for told in _told(row["routes"], _ROUTES):
            route = (told.backend, told.model)
            if route not in health or _fitness(told) > _fitness(health[route]):
                health[route] = told
    return Workforce(models=models, health=health)


async def loaded_models(conn: billing.Connection) -> Mapping[str, LoadedModel]:
    """Only the engine's."""
    return (await read_workforce(conn)).models


_MODELS: Final = msgspec.json.Decoder(list[LoadedModel])
_ROUTES: Final = msgspec.json.Decoder(list[RouteHealth])
_FITNESS: Final = {Circuit.CLOSED: 2, Circuit.HALF_OPEN: 1, Circuit.OPEN: 0}


def _told(text: str, decoder: msgspec.json.Decoder[list[_Told]]) -> Sequence[_Told]:
    """What a worker of another version tells may be no news to us; that must stop nobody."""
    try:
        return decoder.decode(text)
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


def _fitness(told: RouteHealth) -> tuple[bool, int, float]:
    return not told.no_credit, _FITNESS[told.circuit], -told.error_rate
