"""What a process needs to tell customers, opened and wired by `bootstrap`."""

import asyncpg
import msgspec

from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.signing import Secrets


class Webhooks(msgspec.Struct, frozen=True, kw_only=True):
    """For the routes."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    secrets: Secrets
    deliverer: Deliverer
