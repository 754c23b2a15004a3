"""Payments as our API shows them, and the bodies that ask for them. Amounts are decimal strings in USD."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

import billing
from billing import payments
from gateway.dialects.native.render import iso, iso_or_none
from gateway.errors import InvalidRequest

MAX_URL_CHARACTERS: Final = 2048
MAX_USD_CHARACTERS: Final = 32

_GRAPHIC: Final = re.compile(r"[!-~]+")

Amount = msgspec.Raw | msgspec.UnsetType
"""Text or number, as it was written: a float between us and the client would change it."""


class TopUpBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much, and where the page leads afterwards."""

    amount_usd: msgspec.Raw
    success_url: str | None = None
    cancel_url: str | None = None
    save_card: bool = False


class PaymentMethodBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the page leads afterwards."""

    success_url: str | None = None
    cancel_url: str | None = None


class AutoTopUpBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is; null lifts a cap."""

    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    threshold_usd: Amount = msgspec.UNSET
    amount_usd: Amount = msgspec.UNSET
    daily_cap_usd: Amount = msgspec.UNSET
    monthly_cap_usd: Amount = msgspec.UNSET


class TopUpErrorView(msgspec.Struct, kw_only=True):
    """Why the last try failed, as the card's issuer says."""

    code: str
    message: str | None


class TopUpView(msgspec.Struct, kw_only=True):
    """A payment into the organization's balance. `url` is where it is paid, while it is `pending`."""

    object: str = "topup"
    id: str
    kind: str
    status: str
    amount_usd: str
    refunded_usd: str
    disputed_usd: str
    url: str | None
    expires_at: str | None
    receipt_url: str | None
    error: TopUpErrorView | None
    created_at: str
    finished_at: str | None


class TopUpList(msgspec.Struct, kw_only=True):
    """A page of top-ups, newest first; pass `next_cursor` as `cursor` for the next one."""

    object: str = "list"
    data: list[TopUpView]
    has_more: bool
    next_cursor: str | None


class TopUpOptions(msgspec.Struct, kw_only=True):
    """What can be paid: the presets are what people choose most, any amount between the ends will do."""

    object: str = "topup_options"
    currency: str = "usd"
    presets_usd: list[str]
    min_usd: str
    max_usd: str
    step_usd: str


class CardView(msgspec.Struct, kw_only=True):
    """What may be shown of a card."""

    brand: str
    last4: str
    exp_month: int
    exp_year: int


class PaymentMethodView(msgspec.Struct, kw_only=True):
    """The saved card, if there is one."""

    object: str = "payment_method"
    card: CardView | None


class PaymentMethodSetup(msgspec.Struct, kw_only=True):
    """A page on which a card is saved, without a payment."""

    object: str = "payment_method_setup"
    url: str
    expires_at: str


class AutoTopUpView(msgspec.Struct, kw_only=True):
    """Below the threshold the saved card is charged the amount, within the caps of the UTC day and month."""

    object: str = "auto_topup"
    enabled: bool
    threshold_usd: str | None
    amount_usd: str | None
    daily_cap_usd: str | None
    monthly_cap_usd: str | None
    failures: int
    next_try_at: str | None
    disabled_reason: str | None


def top_up_view(payment: payments.Payment) -> TopUpView:
    """A payment."""
    error = payment.error_code and TopUpErrorView(code=payment.error_code, message=payment.error_message)
    return TopUpView(
        id=payment.id.hex,
        kind=payment.kind,
        status=payment.status,
        amount_usd=billing.format_usd(payment.amount_nano),
        refunded_usd=billing.format_usd(payment.refunded_nano),
        disputed_usd=billing.format_usd(payment.disputed_nano),
        url=payment.url,
        expires_at=iso_or_none(payment.expires_at),
        receipt_url=payment.receipt_url,
        error=error or None,
        created_at=iso(payment.created_at),
        finished_at=iso_or_none(payment.finished_at),
    )


def card_view(card: payments.Card | None) -> PaymentMethodView:
    """The saved card."""
    return PaymentMethodView(card=None if card is None else CardView(**msgspec.structs.asdict(card)))


def auto_top_up_view(rule: payments.AutoTopUp) -> AutoTopUpView:
    """The rule."""
    return AutoTopUpView(
        enabled=rule.enabled,
        threshold_usd=_usd_or_none(rule.threshold_nano),
        amount_usd=_usd_or_none(rule.amount_nano),
        daily_cap_usd=_usd_or_none(rule.daily_cap_nano),
        monthly_cap_usd=_usd_or_none(rule.monthly_cap_nano),
        failures=rule.failures,
        next_try_at=iso_or_none(rule.next_try_at),
        disabled_reason=rule.disabled_reason,
    )


def top_up_options() -> TopUpOptions:
    """The same for everybody."""
    return TopUpOptions(
        presets_usd=[billing.format_usd(nano) for nano in payments.PRESETS_NANO],
        min_usd=billing.format_usd(payments.LEAST_NANO),
        max_usd=billing.format_usd(payments.MOST_NANO),
        step_usd=billing.format_usd(payments.NANO_PER_CENT),
    )


def read_usd(raw: msgspec.Raw, param: str) -> int:
    """Nano-USD of a text or a number, exactly. Raises InvalidRequest."""
    written = bytes(raw)
    text = written.decode().strip('"') if len(written) <= MAX_USD_CHARACTERS else ""
    try:
        return billing.parse_usd(text)
    except billing.MoneyFormatError:
        raise InvalidRequest(
            f"{param} must be an amount in USD: a decimal as text, or a number",
            param=param,
            suggestion="20.00",
        ) from None


def changed_rule(rule: payments.AutoTopUp, body: AutoTopUpBody) -> payments.AutoTopUp:
    """The rule with what the body says. Raises InvalidRequest."""
    changes: dict[str, Any] = {}
    if not isinstance(body.enabled, msgspec.UnsetType):
        changes["enabled"] = body.enabled
    for name in ("threshold", "amount", "daily_cap", "monthly_cap"):
        given = getattr(body, f"{name}_usd")
        if not isinstance(given, msgspec.UnsetType):
            is_null = bytes(given) == b"null"
            changes[f"{name}_nano"] = None if is_null else read_usd(given, f"{name}_usd")
    return msgspec.structs.replace(rule, **changes)


def read_url(given: str | None, param: str, *, default: str) -> str:
    """An address of the web for people to come back to. Raises InvalidRequest."""
    if given is None:
        return default
    if not _is_address(given) or len(given) > MAX_URL_CHARACTERS:
        raise InvalidRequest(
            f"{param} must be a web address of at most {MAX_URL_CHARACTERS} characters",
            param=param,
            suggestion="https://your.site/thanks",
        )
    return given


def _is_address(text: str) -> bool:
    if not text.startswith(("https://", "http://")) or _GRAPHIC.fullmatch(text) is None:
        return False
    try:
        return bool(urlsplit(text).hostname)
    except ValueError:
        return False


def _usd_or_none(nano: int | None) -> str | None:
    return None if nano is None else billing.format_usd(nano)
