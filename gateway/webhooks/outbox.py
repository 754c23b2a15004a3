"""What is to be told, written in the transaction that makes it true: no crash can lose it.

An event that nobody wants to hear of leaves no row.
"""

import re
import uuid
import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

import billing
from gateway.ids import new_id
from gateway.webhooks.events import EventType
from gateway.webhooks.schedule import Kind

WANTED: Final = """
    endpoint.organization_id = happened.organization_id AND endpoint.status = 'enabled'
    AND (endpoint.project_id IS NULL OR endpoint.project_id = happened.project_id)
    AND (endpoint.events IS NULL OR happened.type = ANY(endpoint.events))
"""
"""An endpoint of a project hears of this project only: not of other projects, not of money."""


LANES_OF_URLS: Final = 256
"""Of an organization: who gives each job a host of its own fills no more lanes than that."""

_AFTER_HOST: Final = re.compile(r"[/?#]")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an organization, besides jobs."""

    organization_id: uuid.UUID
    project_id: uuid.UUID | None = None
    type: str
    payload: dict[str, Any]


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one event is to be brought."""

    event_id: uuid.UUID
    organization_id: uuid.UUID
    project_id: uuid.UUID | None
    endpoint_id: uuid.UUID | None
    kind: Kind
    url: str

    @property
    def lane(self) -> str:
        """An endpoint; for URLs of jobs the organization's use of a host, so that nobody delays others."""
        if self.endpoint_id is not None:
            return endpoint_lane(self.endpoint_id)
        # Checked when the job was submitted; here nothing may fail that would keep the job from ending.
        host = _AFTER_HOST.split(self.url.partition("://")[2], maxsplit=1)[0].lower()
        place = zlib.crc32(host.encode()) % LANES_OF_URLS
        return f"{self.kind} {self.organization_id.hex} {place:02x}"


def endpoint_lane(endpoint_id: uuid.UUID) -> str:
    """Of all that goes to this endpoint."""
    return f"endpoint {endpoint_id.hex}"


async def note_ended(conn: billing.Connection, job_ids: Sequence[uuid.UUID]) -> None:
    """Of jobs that end in this transaction, already with their last state: tell whoever wants to know.

    One read where nobody does; the plan starts at the jobs, whose rows are at hand.
    """
    rows = await conn.fetch(
        f"""
        SELECT happened.*, endpoint.id AS endpoint_id, endpoint.url, endpoint.project_id AS endpoint_project
          FROM (
              SELECT id AS job_id, organization_id, project_id, status = 'completed' AS has_music,
                     CASE status WHEN 'completed' THEN 'job.completed' ELSE 'job.failed' END AS type,
                     request ->> 'webhook_url' AS webhook_url, request ->> 'upload_url' AS upload_url
                FROM job WHERE id = ANY($1)
          ) happened
          LEFT JOIN webhook_endpoint endpoint ON {WANTED}
         WHERE endpoint.id IS NOT NULL OR webhook_url IS NOT NULL OR (upload_url IS NOT NULL AND has_music)
        """,  # noqa: S608 - constants
        job_ids,
    )
    if not rows:
        return
    events: dict[uuid.UUID, uuid.UUID] = {}
    noted, places = [], []
    for row in rows:
        if row["job_id"] not in events:
            events[row["job_id"]] = event_id = new_id()
            noted.append(
                (event_id, row["organization_id"], row["project_id"], row["type"], row["job_id"], None)
            )
            places += _places_in_job(row, event_id)
        if row["endpoint_id"] is not None:
            places.append(_endpoint_place(row, events[row["job_id"]]))
    await _write(conn, noted, places)


async def note_money(conn: billing.Connection, notices: Sequence[billing.Notice]) -> None:
    """What the ledger tells of an organization; in the transaction that marks it as told."""
    await note_events(
        conn,
        [Event(organization_id=one.account_id, type=one.kind, payload=one.data) for one in notices],
    )


async def note_events(
    conn: billing.Connection, events: Sequence[Event], *, but_for: uuid.UUID | None = None
) -> None:
    """For every enabled endpoint that wants to hear of it, but for this one."""
    if not events:
        return
    rows = await conn.fetch(
        f"""
        SELECT n, happened.organization_id, endpoint.id AS endpoint_id, endpoint.url,
               endpoint.project_id AS endpoint_project
          FROM unnest($1::uuid[], $2::uuid[], $3::text[]) WITH ORDINALITY
               AS happened (organization_id, project_id, type, n)
          JOIN webhook_endpoint endpoint ON {WANTED}
         WHERE endpoint.id IS DISTINCT FROM $4
        """,  # noqa: S608 - constants
        [event.organization_id for event in events],
        [event.project_id for event in events],
        [event.type for event in events],
        but_for,
    )
    ids = {n: new_id() for n in sorted({row["n"] for row in rows})}
    noted = []
    for n, event_id in ids.items():
        event = events[n - 1]
        payload = msgspec.json.encode(event.payload).decode()
        noted.append((event_id, event.organization_id, event.project_id, event.type, None, payload))
    await _write(conn, noted, [_endpoint_place(row, ids[row["n"]]) for row in rows])


async def note_test(
    conn: billing.Connection,
    *,
    organization_id: uuid.UUID,
    project_id: uuid.UUID | None,
    endpoint_id: uuid.UUID,
) -> uuid.UUID:
    """A test's event, without a delivery; returns its id."""
    event_id = new_id()
    payload = msgspec.json.encode({"endpoint_id": endpoint_id.hex, "message": "This is a test."}).decode()
    event = (event_id, organization_id, project_id, EventType.WEBHOOK_TEST.value, None, payload)
    await _write(conn, [event], [])
    return event_id


def _places_in_job(row: Any, event_id: uuid.UUID) -> list[_Place]:
    """Those that the job itself names."""
    urls = [(Kind.WEBHOOK, row["webhook_url"])]
    if row["has_music"]:
        urls.append((Kind.UPLOAD, row["upload_url"]))
    return [
        _Place(
            event_id=event_id,
            organization_id=row["organization_id"],
            project_id=row["project_id"],
            endpoint_id=None,
            kind=kind,
            url=url,
        )
        for kind, url in urls
        if url is not None
    ]


def _endpoint_place(row: Any, event_id: uuid.UUID) -> _Place:
    return _Place(
        event_id=event_id,
        organization_id=row["organization_id"],
        project_id=row["endpoint_project"],
        endpoint_id=row["endpoint_id"],
        kind=Kind.WEBHOOK,
        url=row["url"],
    )


async def _write(
    conn: billing.Connection, events: Sequence[tuple[Any, ...]], places: Sequence[_Place]
) -> None:
    if not events:
        return
    await conn.execute(
        """
        WITH event AS (
            INSERT INTO webhook_event (id, organization_id, project_id, type, job_id, payload)
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::jsonb[])
        )
        INSERT INTO webhook_delivery
               (id, event_id, organization_id, project_id, endpoint_id, kind, url, lane)
        SELECT * FROM unnest($7::uuid[], $8::uuid[], $9::uuid[], $10::uuid[], $11::uuid[], $12::text[],
                             $13::text[], $14::text[])
        """,
        *map(list, zip(*events, strict=True)),
        [new_id() for _ in places],
        [place.event_id for place in places],
        [place.organization_id for place in places],
        [place.project_id for place in places],
        [place.endpoint_id for place in places],
        [place.kind.value for place in places],
        [place.url for place in places],
        [place.lane for place in places],
    )
