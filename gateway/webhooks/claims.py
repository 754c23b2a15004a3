"""Which deliveries are tried now, by whom, and what became of it.

Deliveries that may delay one another share a lane: those of one endpoint, or of an organization's jobs to
one host. Of a lane and of an organization only so many are under way at once, in all processes together;
the lanes are walked by their index, so that a long backlog in one hides none of the others, and a lane of
which nothing is under way does not wait for the organization's other lanes.

`attempts` grows with each claim, so it is also the fence: whoever comes back after its lease changes nothing.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

import billing
from gateway.webhooks.schedule import JITTER, Kind

AT_ONCE_PER_LANE: Final = 4
AT_ONCE_PER_ORGANIZATION: Final = 32
MOST_PER_ORGANIZATION: Final = 64
"""Beyond the former only the first of each lane: one endpoint that hangs does not hold up the next."""
LANES_PER_WALK: Final = 200
WEBHOOK_LEASE_SECONDS: Final = 60
UPLOAD_LEASE_SECONDS: Final = 360
"""Longer than an attempt may take. A delivery whose process was killed waits for the end of its lease."""

LATE_DAYS: Final = 5
"""Then it is given up, so that the backlog of a host that hangs ends somewhere; all attempts take less."""

_CLAIM_LOCK: Final = 0x77686F6F  # "whoo": one process at a time counts and claims


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery, ours until its lease ends."""

    id: uuid.UUID
    attempts: int
    """This one included."""
    kind: Kind
    url: str
    organization_id: uuid.UUID
    endpoint_id: uuid.UUID | None
    is_wanted: bool
    """False: its endpoint was disabled or deleted meanwhile."""
    is_late: bool
    """It has waited for too long: more comes into its lane than can be sent."""
    event_id: uuid.UUID
    type: str
    job_id: uuid.UUID | None
    payload: str | None
    happened_at: datetime
    secret_owner: uuid.UUID
    secret_version: int
    with_old_secret: bool

    @property
    def webhook_id(self) -> str:
        """The same for all attempts, all endpoints and all replays."""
        return webhook_id(self.event_id)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of one attempt: a status, or an error; and what follows for the delivery."""

    at: datetime
    latency_ms: int
    status: int | None = None
    error: str | None = None
    answer: str | None = None
    state: str
    """`delivered`, `exhausted`, `dropped`, or `pending` with `delay_seconds`."""
    delay_seconds: int | None = None

    @property
    def result(self) -> str:
        """The word for the counters."""
        return "failed" if self.state == "pending" else self.state


_CLAIMED: Final = f"""
    SELECT claimed.id, claimed.attempts, claimed.kind, claimed.url, claimed.organization_id,
           claimed.endpoint_id, endpoint.id IS NULL OR endpoint.status = 'enabled' AS is_wanted,
           claimed.created_at < now() - interval '{LATE_DAYS} days' AS is_late,
           event.id AS event_id, event.type, event.job_id, event.payload::text AS payload,
           event.created_at AS happened_at,
           coalesce(endpoint.id, claimed.project_id, claimed.organization_id) AS secret_owner,
           coalesce(endpoint.secret_version, signing.version, 1) AS secret_version,
           coalesce(coalesce(endpoint.old_secret_until, signing.old_until) > now(), false) AS with_old_secret
      FROM claimed
      JOIN webhook_event event ON event.id = claimed.event_id
      LEFT JOIN webhook_endpoint endpoint ON endpoint.id = claimed.endpoint_id
      LEFT JOIN webhook_signing signing
        ON claimed.endpoint_id IS NULL
       AND signing.owner_id = coalesce(claimed.project_id, claimed.organization_id)
"""  # noqa: S608 - a constant
_LEASE: Final = f"""
    now() + make_interval(secs => CASE kind WHEN 'upload' THEN {UPLOAD_LEASE_SECONDS}
                                            ELSE {WEBHOOK_LEASE_SECONDS} END)
"""


def webhook_id(event_id: uuid.UUID) -> str:
    """What the header of that name says."""
    return f"msg_{event_id.hex}"


async def claim(
    pool: "asyncpg.Pool[asyncpg.Record]", *, after: str, limit: int
) -> tuple[list[Claim], str | None]:
    """Take what is due in the next lanes after that one; and the last lane of this walk, None at the end.

    Nothing, and the same place in the walk, while another process claims.
    """
    async with pool.acquire() as conn, conn.transaction():
        if not await conn.fetchval("SELECT pg_try_advisory_xact_lock($1)", _CLAIM_LOCK):
            return [], after or None
        rows = await conn.fetch(
            """
            WITH RECURSIVE lanes (name, n) AS (
                (SELECT lane, 1 FROM webhook_delivery
                  WHERE state = 'pending' AND lane > $1 ORDER BY lane LIMIT 1)
                UNION ALL
                SELECT (SELECT lane FROM webhook_delivery
                         WHERE state = 'pending' AND lane > lanes.name ORDER BY lane LIMIT 1), n + 1
                  FROM lanes WHERE name IS NOT NULL AND n < $2
            )
            SELECT name FROM lanes WHERE name IS NOT NULL ORDER BY n
            """,
            after,
            LANES_PER_WALK,
        )
        if not rows:
            return [], None
        claims = await _claim_in(conn, [row["name"] for row in rows], limit)
    return claims, rows[-1]["name"] if len(rows) == LANES_PER_WALK else None


async def _claim_in(conn: billing.Connection, lanes: Sequence[str], limit: int) -> list[Claim]:
    rows = await conn.fetch(
        f"""
        WITH busy AS MATERIALIZED (
            SELECT lane, organization_id FROM webhook_delivery WHERE lease_until > now()
        ), lanes AS (
            SELECT name, coalesce(busy, 0) AS busy
              FROM unnest($1::text[]) AS names (name)
              LEFT JOIN (SELECT lane, count(*) AS busy FROM busy GROUP BY lane) held ON held.lane = name
        ), due AS (
            SELECT found.*,
                   lanes.busy + row_number() OVER (PARTITION BY name ORDER BY next_attempt_at) AS in_lane
              FROM lanes CROSS JOIN LATERAL (
                 SELECT id, organization_id, next_attempt_at FROM webhook_delivery
                  WHERE lane = lanes.name AND state = 'pending' AND next_attempt_at <= now()
                  ORDER BY next_attempt_at LIMIT greatest(0, $2 - lanes.busy)
             ) found
        ), placed AS (
            SELECT due.id, in_lane, next_attempt_at,
                   coalesce(busy, 0) + row_number() OVER (PARTITION BY due.organization_id
                                                          ORDER BY in_lane, next_attempt_at) AS place
              FROM due
              LEFT JOIN (SELECT organization_id, count(*) AS busy FROM busy GROUP BY organization_id) held
                ON held.organization_id = due.organization_id
        ), picked AS (
            SELECT delivery.id FROM webhook_delivery delivery
              JOIN (SELECT id FROM placed WHERE place <= $3 OR in_lane = 1 AND place <= $5
                     ORDER BY place, next_attempt_at LIMIT $4) chosen
                ON chosen.id = delivery.id
             WHERE state = 'pending' AND next_attempt_at <= now()
               FOR UPDATE OF delivery SKIP LOCKED
        ), claimed AS (
            UPDATE webhook_delivery delivery
               SET attempts = attempts + 1, lease_until = {_LEASE}, next_attempt_at = {_LEASE},
                   url = coalesce((SELECT url FROM webhook_endpoint WHERE id = delivery.endpoint_id),
                                  delivery.url)
              FROM picked WHERE delivery.id = picked.id
            RETURNING delivery.*
        )
        {_CLAIMED}
        """,  # noqa: S608 - constants
        lanes,
        AT_ONCE_PER_LANE,
        AT_ONCE_PER_ORGANIZATION,
        limit,
        MOST_PER_ORGANIZATION,
    )
    return [_from_row(row) for row in rows]


async def claim_test(
    conn: billing.Connection, *, delivery_id: uuid.UUID, event_id: uuid.UUID, endpoint_id: uuid.UUID
) -> Claim | None:
    """A new delivery of a test's event, already ours; None while another test of the endpoint is under way.

    The caller holds the transaction that wrote the event.
    """
    # Locked, so that two tests that begin at once do not both find none.
    await conn.execute("SELECT FROM webhook_endpoint WHERE id = $1 FOR NO KEY UPDATE", endpoint_id)
    row = await conn.fetchrow(
        f"""
        WITH claimed AS (
            INSERT INTO webhook_delivery
                   (id, event_id, organization_id, project_id, endpoint_id, kind, url, lane,
                    attempts, lease_until, next_attempt_at)
            SELECT $1, $2, organization_id, project_id, id, 'webhook', url, $4, 1,
                   now() + make_interval(secs => {WEBHOOK_LEASE_SECONDS}),
                   now() + make_interval(secs => {WEBHOOK_LEASE_SECONDS})
              FROM webhook_endpoint
             WHERE id = $3
               AND NOT EXISTS (SELECT FROM webhook_delivery WHERE lane = $4 AND state = 'pending')
            RETURNING *
        )
        {_CLAIMED}
        """,  # noqa: S608 - constants
        delivery_id,
        event_id,
        endpoint_id,
        f"test {endpoint_id.hex}",
    )
    return None if row is None else _from_row(row)


async def record(conn: billing.Connection, claim: Claim, outcome: Outcome, *, is_test: bool = False) -> bool:
    """One attempt's end, with its counter, in one commit; False if the lease was lost: nothing is changed.

    What was dropped while it was under way stays so, unless it has arrived.
    """
    moved = await conn.fetchval(
        """
        WITH moved AS (
            UPDATE webhook_delivery
               SET state = CASE WHEN state = 'dropped' AND $3 <> 'delivered' THEN state ELSE $3 END,
                   next_attempt_at = CASE WHEN state = 'pending' AND $3 = 'pending'
                       THEN now() + make_interval(secs => $4::float8 * (1 + $5 * random())) END,
                   completed_at = CASE WHEN state = 'pending' AND $3 = 'pending' THEN NULL
                                       ELSE coalesce(completed_at, now()) END,
                   lease_until = NULL
             WHERE id = $1 AND attempts = $2 AND state IN ('pending', 'dropped')
            RETURNING id, kind
        ), attempt AS (
            INSERT INTO webhook_attempt (delivery_id, n, at, status, latency_ms, error, answer)
            SELECT id, $2, $6, $7, $8, $9, $10 FROM moved
        ), endpoint AS (
            UPDATE webhook_endpoint
               SET failing_since = CASE WHEN $3 = 'delivered' THEN NULL ELSE now() END
              FROM moved
             WHERE webhook_endpoint.id = $12 AND (failing_since IS NULL) = ($3 <> 'delivered')
            RETURNING 1
        ), counted AS (
            -- The counter last: everybody wants its row, and nobody waits for anything while holding it.
            INSERT INTO webhook_tally (kind, result, total)
            SELECT kind, $11, 1 FROM moved WHERE (SELECT count(*) FROM endpoint) >= 0
            ON CONFLICT (kind, result) DO UPDATE SET total = webhook_tally.total + 1
        )
        SELECT id FROM moved
        """,
        claim.id,
        claim.attempts,
        outcome.state,
        float(outcome.delay_seconds or 0),
        JITTER,
        outcome.at,
        outcome.status,
        outcome.latency_ms,
        outcome.error,
        outcome.answer,
        outcome.result,
        None if is_test else claim.endpoint_id,
    )
    return moved is not None


async def end_untried(conn: billing.Connection, claim: Claim, state: str) -> None:
    """Without an attempt: nobody wants it any more, or the last one was cut off."""
    await conn.execute(
        """
        WITH moved AS (
            UPDATE webhook_delivery
               SET state = $3, next_attempt_at = NULL, completed_at = now(), lease_until = NULL
             WHERE id = $1 AND attempts = $2 AND state = 'pending' RETURNING kind
        )
        INSERT INTO webhook_tally (kind, result, total) SELECT kind, $3, 1 FROM moved
        ON CONFLICT (kind, result) DO UPDATE SET total = webhook_tally.total + 1
        """,
        claim.id,
        claim.attempts,
        state,
    )


async def give_back(conn: billing.Connection, claims: Sequence[Claim]) -> None:
    """Attempts that were cut off when the process stopped: due again at once, for others."""
    await conn.execute(
        """
        UPDATE webhook_delivery SET next_attempt_at = now(), lease_until = NULL
          FROM unnest($1::uuid[], $2::int[]) AS t (id, attempts)
         WHERE webhook_delivery.id = t.id AND webhook_delivery.attempts = t.attempts AND state = 'pending'
        """,
        [claim.id for claim in claims],
        [claim.attempts for claim in claims],
    )


def _from_row(row: asyncpg.Record) -> Claim:
    values = dict(row)
    values["kind"] = Kind(values["kind"])
    return Claim(**values)
