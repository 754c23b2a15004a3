"""Stripe's objects, as they go over the wire, in our words. Nothing here talks to Stripe."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from billing.payments.errors import EventRefused
from billing.payments.processor import Card, Dispute, Event, Intent, Method, Movement, Page, Refund, Setup

Wire = Mapping[str, Any]

PAYMENT_ID: Final = "antiphon_payment"
ORDER_ID: Final = "antiphon_refund"
"""Our ids in Stripe's metadata: by them we find our own row again, never an amount or an owner."""

_OBJECTS: Final = frozenset(
    {"payment_intent", "charge", "refund", "dispute", "checkout.session", "setup_intent", "payment_method"}
)


class _EventData(msgspec.Struct, frozen=True):
    object: dict[str, Any]


class _EventWire(msgspec.Struct, frozen=True):
    id: str
    type: str
    data: _EventData


_decode_event: Final = msgspec.json.Decoder(_EventWire).decode


def ref_of(value: Any) -> str | None:
    """The id of what may be an id, or the object itself where it was expanded."""
    found: str | None = value["id"] if isinstance(value, Mapping) else value
    return found


def our_id(wire: Wire, name: str) -> uuid.UUID | None:
    """An id of ours in the metadata, unless somebody wrote something else there."""
    try:
        return uuid.UUID(hex=(wire.get("metadata") or {})[name])
    except (KeyError, ValueError):
        return None


def moment_of(seconds: int) -> datetime:
    """Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def method_of(wire: Wire) -> Method:
    """A payment method; only cards have something to show."""
    card = wire.get("card")
    return Method(
        ref=wire["id"],
        customer_ref=ref_of(wire.get("customer")),
        card=Card(
            brand=card["brand"], last4=card["last4"], exp_month=card["exp_month"], exp_year=card["exp_year"]
        )
        if card
        else None,
    )


def intent_of(wire: Wire, refunds: list[Refund], disputes: list[Dispute]) -> Intent:
    """A payment intent with its latest charge and its payment method expanded."""
    charge = wire.get("latest_charge") or {}
    error = wire.get("last_payment_error") or {}
    method = wire.get("payment_method")
    return Intent(
        ref=wire["id"],
        status=wire["status"],
        currency=wire["currency"],
        amount_cents=wire["amount"],
        received_cents=wire["amount_received"],
        created_at=moment_of(wire["created"]),
        customer_ref=ref_of(wire.get("customer")),
        payment_id=our_id(wire, PAYMENT_ID),
        method=method_of(method) if method else None,
        receipt_url=charge.get("receipt_url"),
        # Of several reasons the issuer's says most: `insufficient_funds` behind `card_declined`.
        error_code=error.get("decline_code") or error.get("code"),
        error_message=error.get("message"),
        advice=error.get("advice_code"),
        refunds=tuple(refunds),
        disputes=tuple(disputes),
    )


def refund_of(wire: Wire) -> Refund:
    """A refund."""
    return Refund(
        ref=wire["id"],
        amount_cents=wire["amount"],
        status=wire.get("status") or "pending",
        order_id=our_id(wire, ORDER_ID),
    )


def dispute_of(wire: Wire) -> Dispute:
    """A dispute."""
    return Dispute(ref=wire["id"], amount_cents=wire["amount"], status=wire["status"])


def page_of(wire: Wire) -> Page:
    """A Checkout session."""
    return Page(
        ref=wire["id"],
        status=wire["status"],
        url=wire.get("url"),
        expires_at=moment_of(wire["expires_at"]),
        intent_ref=ref_of(wire.get("payment_intent")),
        setup_ref=ref_of(wire.get("setup_intent")),
    )


def setup_of(wire: Wire) -> Setup:
    """A setup intent with its payment method expanded."""
    method = wire.get("payment_method")
    return Setup(
        ref=wire["id"],
        status=wire["status"],
        created_at=moment_of(wire["created"]),
        customer_ref=ref_of(wire.get("customer")),
        method=method_of(method) if method else None,
    )


def movement_of(wire: Wire) -> Movement | None:
    """What a list shows; None where no payment intent was paid, which never was money of ours."""
    created_at = moment_of(wire["created"])
    if wire["object"] == "payment_intent":
        if wire["status"] != "succeeded" or wire["amount_received"] <= 0:
            return None
        return Movement(
            kind="payment",
            ref=wire["id"],
            intent_ref=wire["id"],
            amount_cents=wire["amount_received"],
            currency=wire["currency"],
            status=wire["status"],
            created_at=created_at,
            customer_ref=ref_of(wire.get("customer")),
        )
    intent_ref = ref_of(wire.get("payment_intent"))
    if intent_ref is None:
        return None
    return Movement(
        kind=wire["object"],
        ref=wire["id"],
        intent_ref=intent_ref,
        amount_cents=wire["amount"],
        currency=wire["currency"],
        status=wire.get("status") or "pending",
        created_at=created_at,
    )


def event_of(body: bytes) -> Event | None:
    """Which object a (genuine) event is about; None for kinds of objects that we have nothing to do with."""
    try:
        event = _decode_event(body)
        kind, ref = event.data.object.get("object"), event.data.object.get("id")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventRefused("the body is no event") from error
    if kind not in _OBJECTS or not isinstance(ref, str):
        return None
    wire = event.data.object
    return Event(
        ref=event.id,
        kind=event.type,
        object_kind=kind,
        object_ref=ref,
        intent_ref=ref if kind == "payment_intent" else ref_of(wire.get("payment_intent")),
        setup_ref=ref if kind == "setup_intent" else ref_of(wire.get("setup_intent")),
    )
