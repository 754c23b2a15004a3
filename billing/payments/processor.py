"""What we ask of a payment provider, and what it says, in our own words. Amounts are in cents."""

import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final, Literal, Protocol

import msgspec

CURRENCY: Final = "usd"
NANO_PER_CENT: Final = 10_000_000
FAILED_REFUNDS: Final = ("failed", "canceled")
UNTAKEN_DISPUTES: Final = ("warning_", "prevented")
"""How states of disputes begin in which no money was taken: questions, and what was settled before."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of a card."""

    brand: str
    last4: str
    exp_month: int
    exp_year: int


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """A way to pay, and whose it is; nobody's once it was taken away."""

    ref: str
    customer_ref: str | None
    card: Card | None


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money that was given back, or not in the end."""

    ref: str
    amount_cents: int
    status: str
    order_id: uuid.UUID | None = None
    """Ours, if we ordered it."""

    @property
    def has_failed(self) -> bool:
        """The money is with us again."""
        return self.status in FAILED_REFUNDS


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """Money that a customer's bank took back, or asks about."""

    ref: str
    amount_cents: int
    status: str

    @property
    def has_taken(self) -> bool:
        """Money was taken, whatever became of it afterwards."""
        return not self.status.startswith(UNTAKEN_DISPUTES)

    @property
    def is_won(self) -> bool:
        """The money is with us again."""
        return self.status == "won"


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as it stands at the provider, with all that was taken back of it."""

    ref: str
    status: str
    currency: str
    amount_cents: int
    received_cents: int
    created_at: datetime
    customer_ref: str | None = None
    payment_id: uuid.UUID | None = None
    """Ours, if we began it."""
    method: Method | None = None
    receipt_url: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    advice: str | None = None
    """Of the card's issuer, about trying again."""
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()

    @property
    def is_paid(self) -> bool:
        """The money is ours."""
        return self.status == "succeeded" and self.received_cents > 0

    @property
    def has_stopped(self) -> bool:
        """Nothing will come of it unless somebody acts."""
        was_refused = self.status == "requires_payment_method" and self.error_code is not None
        return was_refused or self.status in {"requires_action", "canceled"}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the provider's on which a customer pays or saves a card."""

    ref: str
    status: Literal["open", "complete", "expired"]
    url: str | None
    expires_at: datetime
    intent_ref: str | None = None
    setup_ref: str | None = None


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """A card being saved."""

    ref: str
    status: str
    created_at: datetime
    customer_ref: str | None
    method: Method | None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider tells us: only which of its objects we should look at."""

    ref: str
    kind: str
    object_kind: str
    object_ref: str
    intent_ref: str | None = None
    setup_ref: str | None = None


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """One object of the provider that moves money, as its lists show it."""

    kind: Literal["payment", "refund", "dispute"]
    ref: str
    intent_ref: str
    amount_cents: int
    """Positive, for us or against us."""
    currency: str
    status: str
    created_at: datetime
    customer_ref: str | None = None
    """Only of payments."""


class PageOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A page to pay on."""

    payment_id: uuid.UUID
    customer_ref: str
    amount_cents: int
    success_url: str
    cancel_url: str
    save_card: bool


class ChargeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A saved card to be charged without its owner."""

    payment_id: uuid.UUID
    customer_ref: str
    method_ref: str
    amount_cents: int


class Processor(Protocol):
    """A payment provider.

    Every method raises ProcessorUnavailable or ProcessorRefused, within a deadline. What creates
    something takes a key or an id of ours: called again with it, it creates nothing more.
    """

    async def create_customer(self, account_id: uuid.UUID, *, key: str) -> str:
        """A customer for this account; its reference."""

    async def open_page(self, order: PageOrder) -> Page:
        """A page to pay on."""

    async def open_setup_page(
        self, customer_ref: str, *, key: str, success_url: str, cancel_url: str
    ) -> Page:
        """A page to save a card on."""

    async def read_page(self, ref: str) -> Page:
        """As it stands."""

    async def read_intent(self, ref: str) -> Intent:
        """As it stands, with refunds and disputes."""

    async def read_setup(self, ref: str) -> Setup:
        """As it stands."""

    async def read_method(self, ref: str) -> Method:
        """As it stands."""

    async def charge(self, order: ChargeOrder) -> str:
        """Charge a saved card; the reference of the payment, whether the card was declined or not."""

    async def find_charge(self, order: ChargeOrder, *, since: datetime) -> str | None:
        """The payment that an earlier `charge` of this order made, if it made one."""

    async def refund(
        self, intent_ref: str, *, order_id: uuid.UUID, amount_cents: int, reason: str | None
    ) -> str:
        """Give back some of a payment; the reference of the refund."""

    async def detach(self, method_ref: str) -> None:
        """Forget a card."""

    async def detach_all(self, customer_ref: str) -> None:
        """Forget all cards of a customer."""

    def list_movements(self, since: datetime) -> AsyncIterator[Movement]:
        """All payments that succeeded, all refunds and disputes that were made since."""

    def read_event(self, body: bytes, signature: str | None) -> Event | None:
        """What was posted to our webhook; raises EventRefused, None if it is not about anything we know."""

    async def close(self) -> None:
        """Close connections."""
