"""Webhook endpoints, their secrets and deliveries as our API shows them, and the bodies that change them."""

from typing import Final

import msgspec

from gateway.dialects.native.render import iso, iso_or_none
from gateway.errors import InvalidRequest
from gateway.outbound import PORTS, BadUrl, check_url
from gateway.settings import Settings
from gateway.webhooks.deliveries import Delivery, DeliveryAttempt
from gateway.webhooks.endpoints import Endpoint, EndpointChanges
from gateway.webhooks.signing import Secret

EXAMPLE_URL: Final = "https://your-site.example/hooks"


class EndpointBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to tell, and of what."""

    url: str
    events: list[str] | None = None
    description: str | None = None


class EndpointChangesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    url: str | msgspec.UnsetType = msgspec.UNSET
    events: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET


class EndpointView(msgspec.Struct, kw_only=True):
    """A URL that is told of events."""

    object: str = "webhook_endpoint"
    id: str
    url: str
    events: list[str] | None
    description: str
    status: str
    disabled_reason: str | None
    failing_since: str | None
    project_id: str | None
    created_at: str


class EndpointList(msgspec.Struct, kw_only=True):
    """All that the key may see, oldest first: there are few."""

    object: str = "list"
    data: list[EndpointView]


class DeletedEndpoint(msgspec.Struct, kw_only=True):
    """It is gone."""

    object: str = "webhook_endpoint"
    id: str
    deleted: bool = True


class SecretView(msgspec.Struct, kw_only=True):
    """What a receiver verifies signatures with."""

    object: str = "webhook_secret"
    secret: str
    version: int
    previous_valid_until: str | None


class DeliveryView(msgspec.Struct, kw_only=True):
    """One event, or one file, on its way to one URL."""

    object: str = "webhook_delivery"
    id: str
    webhook_id: str
    kind: str
    event: str
    url: str
    endpoint_id: str | None
    job_id: str | None
    state: str
    attempt_count: int
    next_attempt_at: str | None
    created_at: str
    completed_at: str | None
    replay_of: str | None


class DeliveryAttemptView(msgspec.Struct, kw_only=True):
    """One try: a status, or the reason why there was none."""

    n: int
    at: str
    status: int | None
    latency_ms: int
    error: str | None
    answer: str | None


class DeliveryDetails(DeliveryView, kw_only=True):
    """A delivery with its attempts."""

    attempts: list[DeliveryAttemptView]


class DeliveryList(msgspec.Struct, kw_only=True):
    """A page of deliveries, newest first; pass `next_cursor` as `cursor` for the next one."""

    object: str = "list"
    data: list[DeliveryView]
    has_more: bool
    next_cursor: str | None


def endpoint_view(endpoint: Endpoint) -> EndpointView:
    """An endpoint."""
    return EndpointView(
        id=endpoint.id.hex,
        url=endpoint.url,
        events=None if endpoint.events is None else list(endpoint.events),
        description=endpoint.description,
        status=endpoint.status,
        disabled_reason=endpoint.disabled_reason,
        failing_since=iso_or_none(endpoint.failing_since),
        project_id=endpoint.project_id.hex if endpoint.project_id else None,
        created_at=iso(endpoint.created_at),
    )


def secret_view(secret: Secret) -> SecretView:
    """A secret, readable."""
    return SecretView(
        secret=secret.value,
        version=secret.version,
        previous_valid_until=iso_or_none(secret.old_until),
    )


def delivery_view(delivery: Delivery) -> DeliveryView:
    """A delivery."""
    return DeliveryView(
        id=delivery.id.hex,
        webhook_id=delivery.webhook_id,
        kind=delivery.kind,
        event=delivery.event,
        url=delivery.url,
        endpoint_id=delivery.endpoint_id.hex if delivery.endpoint_id else None,
        job_id=delivery.job_id.hex if delivery.job_id else None,
        state=delivery.state,
        attempt_count=delivery.attempts,
        next_attempt_at=iso_or_none(delivery.next_attempt_at),
        created_at=iso(delivery.created_at),
        completed_at=iso_or_none(delivery.completed_at),
        replay_of=delivery.replay_of.hex if delivery.replay_of else None,
    )


def delivery_details(delivery: Delivery, attempts: list[DeliveryAttempt]) -> DeliveryDetails:
    """A delivery with its attempts."""
    views = [
        DeliveryAttemptView(**msgspec.structs.asdict(attempt) | {"at": iso(attempt.at)})
        for attempt in attempts
    ]
    return DeliveryDetails(**msgspec.structs.asdict(delivery_view(delivery)), attempts=views)


def read_changes(body: EndpointChangesBody, settings: Settings) -> EndpointChanges:
    """Raises InvalidRequest, naming the field."""
    return EndpointChanges(
        url=body.url if isinstance(body.url, msgspec.UnsetType) else read_hook_url(body.url, settings),
        events=body.events,
        description="" if body.description is None else body.description,
        enabled=body.enabled,
    )


def read_hook_url(url: str, settings: Settings) -> str:
    """One that can be reached as far as can be said without asking anybody. Raises InvalidRequest."""
    try:
        check_url(url, ports=None if settings.allow_private_hosts else PORTS)
    except BadUrl as error:
        raise InvalidRequest(f"url: {error}", param="url", suggestion=EXAMPLE_URL) from error
    return url
