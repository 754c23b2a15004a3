"""What people do at Stripe that no API call does: customers on the page, we in the dashboard, banks, time."""

import asyncio
from typing import Literal

from tests.providers.stripe.account import Account
from tests.providers.stripe.cards import DECLINED, GOOD, named
from tests.providers.stripe.collection import Call, Json
from tests.providers.stripe.deliveries import Attempt
from tests.providers.stripe.refusals import Refusal

FORGED_SECRET = "whsec_of_somebody_else"


class Control:
    """Each method does one thing that happens outside the API, with the events that follow from it.

    A payment is named by the id of its checkout session, its payment intent or its charge; a card by its test
    number or its `pm_card_...` name.
    """

    def __init__(self, account: Account) -> None:
        self._account = account

    def pay(self, session: str, card: str = GOOD, *, email: str | None = None, save: bool = False) -> Json:
        """Press Pay on the checkout page; the session afterwards. A card that declines is a refusal."""
        found = self._account.sessions.get(session)
        declined = self._account.sessions.complete(found, named(card), email=email, saves=save)
        if declined:
            raise Refusal(declined.message, status=402, type="card_error", code=declined.code)
        return found

    def decline(self, session: str, card: str = DECLINED) -> Json:
        """Press Pay with a card that the bank refuses; the session stays open."""
        found = self._account.sessions.get(session)
        if not self._account.sessions.complete(found, named(card)):
            raise Refusal(f"Card {card} does not decline.")
        return found

    def settle(self, payment: str) -> Json:
        """The days that a bank account's payment takes are over. It fails with EMPTY_BANK_ACCOUNT."""
        intent = self._account.payment_intents.get(self.charge_of(payment)["payment_intent"])
        sessions = self._account.sessions.where(payment_intent=intent["id"])
        if sessions:
            self._account.sessions.settle(sessions[0])
        else:
            self._account.payment_intents.settle(intent)
        return intent

    def expire(self, session: str) -> Json:
        """The session's time is over, now."""
        return self._account.sessions.expire(Call(session))

    def save_card(self, customer: str, card: str = GOOD, *, default: bool = False) -> Json:
        """A card of that customer, ready for payments in their absence; their default if asked."""
        found = self._account.customers.living(customer)
        method = self._account.payment_methods.make(named(card), email=found["email"], name=found["name"])
        self._account.payment_methods.set_up(method, customer, redisplay="always")
        if default:
            found["invoice_settings"] = found["invoice_settings"] | {"default_payment_method": method["id"]}
        return method

    def turn_card(self, payment_method: str, card: str) -> Json:
        """From now on that saved card behaves as another test card, as when it runs dry or is blocked."""
        method = self._account.payment_methods.get(payment_method)
        self._account.payment_methods.turn(method, named(card))
        return method

    def authenticate(self, payment_intent: str, *, ok: bool = True) -> Json:
        """What the customer does on the bank's page of a payment that `requires_action`."""
        intent = self._account.payment_intents.get(payment_intent)
        self._account.payment_intents.authenticate(intent, ok=ok)
        return intent

    def refund(self, payment: str, amount: int | None = None, *, pending: bool = False) -> Json:
        """Refund in the dashboard, all that is left unless told how much; pending until settled or failed."""
        return self._account.refunds.make(self.charge_of(payment), amount, pending=pending)

    def settle_refund(self, refund: str) -> Json:
        return self._account.refunds.settle(self._account.refunds.get(refund))

    def fail_refund(self, refund: str) -> Json:
        return self._account.refunds.fail(self._account.refunds.get(refund))

    def dispute(
        self, payment: str, amount: int | None = None, *, reason: str = "fraudulent", inquiry: bool = False
    ) -> Json:
        """The customer's bank takes the money back, or only asks (an inquiry)."""
        return self._account.disputes.open(self.charge_of(payment), amount, reason=reason, inquiry=inquiry)

    def end_dispute(self, dispute: str, how: Literal["won", "lost", "escalated", "dropped"]) -> Json:
        """Won or lost; an inquiry is escalated to a chargeback or dropped."""
        disputes = self._account.disputes
        act = {
            "won": disputes.win,
            "lost": disputes.lose,
            "escalated": disputes.escalate,
            "dropped": disputes.drop,
        }
        return act[how](disputes.get(dispute))

    def advance(self, seconds: int) -> int:
        """Move Stripe's clock, also back; sessions expire and deliveries fall due by it. The time then."""
        return self._account.clock.advance(seconds)

    def events(self, type: str | None = None) -> list[Json]:  # noqa: A002 - Stripe's own name
        """All events so far, or those of one type, oldest first."""
        wanted = {"type": type} if type else {}
        return self._account.events.where(**wanted)[::-1]

    async def deliver(
        self,
        event: str,
        *,
        copies: int = 1,
        forged: bool = False,
        age_s: int = 0,
        alter: Json | None = None,
        at_once: bool = False,
    ) -> list[Attempt]:
        """Send an event once more: forged with another secret, signed long ago, or altered after signing."""
        found = self._account.events.get(event)
        secret = FORGED_SECRET if forged else None
        deliveries = self._account.deliveries
        sent = [deliveries.deliver(found, secret=secret, age_s=age_s, alter=alter) for _ in range(copies)]
        return list(await asyncio.gather(*sent)) if at_once else [await one for one in sent]

    def charge_of(self, payment: str) -> Json:
        account = self._account
        if payment.startswith("cs_"):
            payment = account.sessions.get(payment)["payment_intent"] or ""
        if payment.startswith("pi_"):
            payment = account.payment_intents.get(payment)["latest_charge"] or ""
        return account.charges.get(payment)
