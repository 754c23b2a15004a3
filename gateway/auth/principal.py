"""Who is calling, and what they may do."""

import ipaddress
import uuid
from datetime import datetime
from enum import StrEnum

import msgspec

from gateway.errors import InvalidApiKey, ModelNotAllowed, ScopeDenied


class Scope(StrEnum):
    """What a key can be limited to; a key without scopes may do everything."""

    GENERATE = "generate"
    READ = "read"
    BILLING = "billing"
    WEBHOOKS = "webhooks"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """One key, and the organization and project for which it speaks."""

    key_id: uuid.UUID
    organization_id: uuid.UUID
    project_id: uuid.UUID | None
    """None: the whole organization."""
    test: bool
    scopes: frozenset[str] | None = None
    models: frozenset[str] | None = None
    cidrs: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    max_open_jobs: int | None = None
    has_budget: bool = False
    expires_at: datetime | None = None

    def check_usable(self, *, now: datetime, client_host: str | None) -> None:
        """Raise InvalidApiKey if the key has expired or is used from a place it is not meant for."""
        if self.expires_at is not None and now >= self.expires_at:
            raise InvalidApiKey("this API key has expired")
        if self.cidrs is not None and not _is_within(client_host, self.cidrs):
            raise InvalidApiKey("this API key is not usable from this address")

    def check_scope(self, scope: Scope) -> None:
        """Raise ScopeDenied unless the key has the scope."""
        if self.scopes is not None and scope not in self.scopes:
            raise ScopeDenied(f"this API key lacks the scope {scope.value!r}")

    def check_model(self, model: str) -> None:
        """Raise ModelNotAllowed if the key is limited to other models."""
        if self.models is not None and model not in self.models:
            raise ModelNotAllowed(
                f"this API key is not allowed to use {model}",
                param="model",
                suggestion=min(self.models, default=None),
            )


def _is_within(host: str | None, cidrs: tuple[str, ...]) -> bool:
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in ipaddress.ip_network(cidr) for cidr in cidrs)
