"""Signatures of what is sent, by the Standard Webhooks specification, and the secrets behind them.

Nothing secret is stored: a secret follows from the installation's own, whom it belongs to, and a version.
"""

import base64
import hashlib
import hmac
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from standardwebhooks import Webhook

from gateway.signed_urls import derive_key

OLD_SECRET_LIFETIME: Final = timedelta(hours=24)
"""After a rotation messages carry both signatures for so long."""

_PURPOSE: Final = b"antiphon webhook secrets v1"


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiver verifies with."""

    value: str
    version: int
    old_until: datetime | None
    """Until then messages are signed with the version before, too."""

    def __repr__(self) -> str:
        return f"Secret(version={self.version})"


class Secrets:
    """The secrets of one installation."""

    def __init__(self, secret_key: str) -> None:
        self._key = derive_key(secret_key, _PURPOSE)

    def value(self, owner_id: uuid.UUID, version: int) -> str:
        """Of an endpoint, or of the organization or project whose jobs name a URL."""
        message = owner_id.bytes + version.to_bytes(4, "big")
        return "whsec_" + base64.b64encode(hmac.new(self._key, message, hashlib.sha256).digest()).decode()

    def valid(self, owner_id: uuid.UUID, version: int, *, with_old: bool) -> list[str]:
        """Those that messages are signed with, the present one first."""
        versions = [version, version - 1] if with_old and version > 1 else [version]
        return [self.value(owner_id, one) for one in versions]


def signed_headers(values: Sequence[str], *, webhook_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers of a message; `at` in UTC is the moment of this attempt, not of the event."""
    text = body.decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(value).sign(webhook_id, at, text) for value in values),
    }
