"""A customer of a gateway that takes payments, and Stripe's stand-in behind a socket."""

from typing import Any

import httpx
import msgspec

import billing
from tests.gateway.api.installation import Customer, Installation
from tests.providers import stripe

WEBHOOK_SECRET = "whsec_of_the_tests"


class Shop(msgspec.Struct, kw_only=True):
    """The installation, Stripe, and one customer without credit."""

    installation: Installation
    stripe: stripe.StandIn
    customer: Customer

    async def call(self, method: str, path: str, *, key: str | None = None, **more: Any) -> httpx.Response:
        headers = self.customer.headers(key) | more.pop("headers", {})
        return await self.installation.http.request(method, path, headers=headers, **more)

    async def top_up(self, amount: object = "20", **more: Any) -> dict[str, Any]:
        """A top-up that waits to be paid."""
        body = {"amount_usd": amount} | more.pop("body", {})
        answer = await self.call("POST", "/v1/topups", json=body, **more)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def session_of(self, top_up: dict[str, Any]) -> str:
        """At Stripe."""
        (found,) = [
            one["id"]
            for one in self.stripe.account.sessions.where()
            if one["client_reference_id"] == top_up["id"]
        ]
        return str(found)

    def pay(self, top_up: dict[str, Any], **more: Any) -> str:
        """The customer presses Pay; the payment intent."""
        return str(self.stripe.control.pay(self.session_of(top_up), **more)["payment_intent"])

    async def balance(self) -> str:
        return str((await self.customer.get("/v1/balance")).json()["balance_usd"])

    async def read(self, path: str) -> dict[str, Any]:
        answer = await self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def save_card(self, **more: Any) -> None:
        answer = await self.call("POST", "/v1/payment_method", json={})
        assert answer.status_code == 201, answer.text
        (page,) = self.stripe.account.sessions.where(mode="setup", status="open")
        self.stripe.control.pay(page["id"], **more)
        await self.stripe.deliveries.settled()

    async def posted(self) -> int:
        async with self.installation.live.pool.acquire() as conn:
            return (await billing.read_account(conn, self.customer.organization_id)).posted_nano


def environ(stand_in: stripe.StandIn) -> dict[str, str]:
    """What an operator sets to take payments."""
    return {
        "ANTIPHON_STRIPE_SECRET_KEY": stand_in.api_key,
        "ANTIPHON_STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "ANTIPHON_STRIPE_BASE_URL": stand_in.url,
    }
