"""Events: what happened, as it looked when it happened."""

from copy import deepcopy

import stripe
import stripe.params as described
from tests.providers.stripe.collection import Call, Collection, Json, operation
from tests.providers.stripe.refusals import Refusal

KEPT_S = 30 * 24 * 3600


class Events(Collection):
    kind = "event"
    prefix = "evt"
    lacks = ("metadata",)

    def record(self, type: str, found: Json, before: Json | None = None) -> None:  # noqa: A002 - Stripe's own name
        """Remember a snapshot of the object, and hand it to the deliveries."""
        data: Json = {"object": deepcopy(found)}
        if before:
            data["previous_attributes"] = deepcopy(before)
        origin = self.account.origin
        event = self.add(
            {
                "api_version": stripe.api_version,
                "data": data,
                "pending_webhooks": 1 if self.account.deliveries.endpoint else 0,
                "request": {"id": origin.id, "idempotency_key": origin.idempotency_key},
                "type": type,
            }
        )
        self.account.deliveries.take(event)

    @operation("GET /v1/events/{id}", described.EventRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("GET /v1/events", described.EventListParams, "type types delivery_success")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/events", "type", "types", "delivery_success")

    def where(self, **fields: object) -> list[Json]:
        """Those of the last 30 days: Stripe lists no older ones."""
        types, delivered = fields.pop("types", None), fields.pop("delivery_success", None)
        if types and "type" in fields:
            raise Refusal("You may only specify one of these parameters: type, types.", param="types")
        oldest = self.account.clock.now() - KEPT_S
        return [
            event
            for event in super().where(**fields)
            if event["created"] >= oldest
            and (types is None or event["type"] in types)
            and (delivered is None or (event["pending_webhooks"] == 0) == delivered)
        ]
