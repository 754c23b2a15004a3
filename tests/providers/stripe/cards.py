"""Stripe's test cards and bank accounts: what becomes of a payment with each of them."""

from dataclasses import dataclass
from typing import Literal

from tests.providers.stripe.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Decline:
    """Why an issuer refuses."""

    code: str
    message: str
    decline_code: str | None = None
    advice_code: str = "try_again_later"

    @property
    def reason(self) -> str:
        return self.decline_code or self.code


GENERIC = Decline("card_declined", "Your card was declined.", "generic_decline")
INSUFFICIENT_FUNDS = Decline("card_declined", "Your card has insufficient funds.", "insufficient_funds")
LOST = Decline("card_declined", "Your card was declined.", "lost_card", "do_not_try_again")
STOLEN = Decline("card_declined", "Your card was declined.", "stolen_card", "do_not_try_again")
EXPIRED = Decline("expired_card", "Your card has expired.", advice_code="confirm_card_data")
WRONG_CVC = Decline(
    "incorrect_cvc", "Your card's security code is incorrect.", advice_code="confirm_card_data"
)
PROCESSING = Decline(
    "processing_error", "An error occurred while processing your card. Try again in a little bit."
)
NO_COVER = Decline(
    "payment_method_provider_decline",
    "Your account has insufficient funds to cover the payment.",
    "insufficient_funds",
)
NEEDS_AUTHENTICATION = Decline(
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
    "authentication_required",
)
AUTHENTICATION_FAILED = Decline(
    "payment_intent_authentication_failure",
    "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new"
    " PaymentMethod to attempt to fulfill this PaymentIntent again.",
)


@dataclass(frozen=True, slots=True)
class Card:
    """A test card. `token` is the name under which Stripe's documentation lets a program use it.

    A bank account stands here as well: a payment with it is decided days later.
    """

    number: str
    token: str
    declines: Decline | None = None
    saves: bool = True  # it can be attached to a customer
    authenticates: Literal["never", "unless_set_up", "always"] = "never"
    dispute: Literal["fraudulent", "product_not_received", "inquiry"] | None = None
    refund: Literal["succeeds", "pends", "fails_later"] = "succeeds"
    brand: str = "visa"
    kind: Literal["card", "us_bank_account"] = "card"

    @property
    def last4(self) -> str:
        return self.number[-4:]


GOOD = "4242424242424242"
DECLINED = "4000000000000002"
NO_FUNDS = "4000000000009995"
DECLINED_LATER = "4000000000000341"
ASKS_ONCE = "4000002500003155"
ASKS_ALWAYS = "4000002760003184"
REFUND_PENDS = "4000000000007726"
REFUND_FAILS = "4000000000005126"
BANK_ACCOUNT = "000123456789"
EMPTY_BANK_ACCOUNT = "000222222227"

CARDS = (
    Card(GOOD, "pm_card_visa"),
    Card("5555555555554444", "pm_card_mastercard", brand="mastercard"),
    Card("378282246310005", "pm_card_amex", brand="amex"),
    Card(DECLINED, "pm_card_chargeDeclined", GENERIC, saves=False),
    Card(NO_FUNDS, "pm_card_chargeDeclinedInsufficientFunds", INSUFFICIENT_FUNDS, saves=False),
    Card("4000000000009987", "pm_card_visa_chargeDeclinedLostCard", LOST, saves=False),
    Card("4000000000009979", "pm_card_visa_chargeDeclinedStolenCard", STOLEN, saves=False),
    Card("4000000000000069", "pm_card_chargeDeclinedExpiredCard", EXPIRED, saves=False),
    Card("4000000000000127", "pm_card_chargeDeclinedIncorrectCvc", WRONG_CVC, saves=False),
    Card("4000000000000119", "pm_card_chargeDeclinedProcessingError", PROCESSING, saves=False),
    Card(DECLINED_LATER, "pm_card_chargeCustomerFail", GENERIC),
    Card(ASKS_ONCE, "pm_card_authenticationRequiredOnSetup", authenticates="unless_set_up"),
    Card(ASKS_ALWAYS, "pm_card_authenticationRequired", authenticates="always"),
    Card(
        "4000008260003178",
        "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds",
        INSUFFICIENT_FUNDS,
        authenticates="unless_set_up",
    ),
    Card("4000000000000259", "pm_card_createDispute", dispute="fraudulent"),
    Card("4000000000002685", "pm_card_createDisputeProductNotReceived", dispute="product_not_received"),
    Card("4000000000001976", "pm_card_createDisputeInquiry", dispute="inquiry"),
    Card(REFUND_PENDS, "pm_card_pendingRefund", refund="pends"),
    Card(REFUND_FAILS, "pm_card_refundFail", refund="fails_later"),
    Card(BANK_ACCOUNT, "pm_usBankAccount_success", kind="us_bank_account"),
    Card(EMPTY_BANK_ACCOUNT, "pm_usBankAccount_insufficientFunds", NO_COVER, kind="us_bank_account"),
)
BY_NUMBER = {card.number: card for card in CARDS}
BY_TOKEN = {card.token: card for card in CARDS} | {"pm_card_visa_chargeDeclined": BY_NUMBER[DECLINED]}


def named(name: str) -> Card:
    """The test card of a number, as people type it, or of a name of Stripe's documentation."""
    card = BY_TOKEN.get(name) or BY_NUMBER.get(name.replace(" ", "").replace("-", ""))
    if card is None:
        raise Refusal(f"No such test card: {name}", param="card")
    return card
