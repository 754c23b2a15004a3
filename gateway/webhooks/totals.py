"""Counters of what was sent, for Prometheus: from Postgres, so equal everywhere and after restarts."""

import msgspec

import billing


class WebhookTotal(msgspec.Struct, frozen=True, kw_only=True):
    """`delivered`, `exhausted` and `dropped` end a delivery; `failed` is an attempt that another follows;
    `disabled` counts endpoints that were disabled because they fail.
    """

    kind: str
    result: str
    total: int


async def read_webhook_totals(conn: billing.Connection) -> list[WebhookTotal]:
    """All of them; there are at most two kinds times five results."""
    rows = await conn.fetch("SELECT kind, result, total FROM webhook_tally ORDER BY kind, result")
    return [WebhookTotal(**dict(row)) for row in rows]
