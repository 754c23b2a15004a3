"""Customers."""

from collections.abc import Iterator

import stripe.params as described
from tests.providers.stripe.collection import Call, Collection, Json, change, merged, operation
from tests.providers.stripe.ids import random_text
from tests.providers.stripe.refusals import Refusal, missing_object

FIELDS = "name email phone description"
INVOICES = "invoice_settings.default_payment_method"


class Customers(Collection):
    kind = "customer"
    prefix = "cus"

    @operation(
        "POST /v1/customers", described.CustomerCreateParams, f"{FIELDS} metadata payment_method {INVOICES}"
    )
    def create(self, call: Call) -> Json:
        customer = self.make(
            **{name: call.get(name) for name in FIELDS.split()}, metadata=merged({}, call.get("metadata", {}))
        )
        if "payment_method" in call.params:
            self.account.payment_methods.attach_to(
                call.params["payment_method"], customer["id"], "payment_method"
            )
        self._set_default(customer, call)
        return customer

    def make(
        self,
        *,
        name: str | None = None,
        email: str | None = None,
        phone: str | None = None,
        description: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Json:
        fields = {
            "name": name,
            "email": email,
            "phone": phone,
            "description": description,
            "metadata": metadata or {},
        }
        customer = self.add(
            fields
            | {
                "address": None,
                "balance": 0,
                "currency": None,
                "customer_account": None,
                "default_source": None,
                "delinquent": False,
                "discount": None,
                "invoice_prefix": random_text(8).upper(),
                "invoice_settings": {
                    "custom_fields": None,
                    "default_payment_method": None,
                    "footer": None,
                    "rendering_options": None,
                },
                "next_invoice_sequence": 1,
                "preferred_locales": [],
                "shipping": None,
                "tax_exempt": "none",
                "test_clock": None,
            }
        )
        self.account.events.record("customer.created", customer)
        return customer

    def living(self, id: str, param: str | None = "customer") -> Json:  # noqa: A002 - an API's id
        """One that may be used: a deleted customer can only be looked at."""
        customer = self.get(id, param)
        if customer.get("deleted"):
            raise missing_object(self.kind, id, param)
        return customer

    @operation("GET /v1/customers/{id}", described.CustomerRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("GET /v1/customers", described.CustomerListParams, "email")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/customers", "email")

    def newest_first(self) -> Iterator[Json]:
        return (one for one in super().newest_first() if not one.get("deleted"))

    @operation("POST /v1/customers/{id}", described.CustomerUpdateParams, f"{FIELDS} metadata {INVOICES}")
    def update(self, call: Call) -> Json:
        customer = self.living(call.id, None)
        fields = {name: call.params[name] for name in FIELDS.split() if name in call.params}
        if "metadata" in call.params:
            fields["metadata"] = merged(customer["metadata"], call.params["metadata"])
        before = change(customer, **fields) | self._set_default(customer, call)
        if before:
            self.account.events.record("customer.updated", customer, before)
        return customer

    def _set_default(self, customer: Json, call: Call) -> Json:
        given = call.get("invoice_settings", {})
        if "default_payment_method" not in given:
            return {}
        method = given["default_payment_method"]
        if (
            method
            and self.account.payment_methods.get(method, "invoice_settings[default_payment_method]")[
                "customer"
            ]
            != customer["id"]
        ):
            raise Refusal(
                f"The customer does not have a payment method with the ID {method}. The payment method"
                " must be attached to the customer.",
                code="resource_missing",
                param="invoice_settings[default_payment_method]",
            )
        settings = customer["invoice_settings"]
        return change(customer, invoice_settings=settings | {"default_payment_method": method})

    @operation("DELETE /v1/customers/{id}", described.CustomerDeleteParams)
    def delete(self, call: Call) -> Json:
        customer = self.living(call.id, None)
        for method in self.account.payment_methods.where(customer=customer["id"]):
            self.account.payment_methods.release(method)
        self.account.events.record("customer.deleted", customer)
        customer.clear()
        customer |= {"id": call.id, "object": self.kind, "deleted": True}
        return customer

    @operation("GET /v1/customers/{id}/payment_methods", described.CustomerListPaymentMethodsParams, "type")
    def list_payment_methods(self, call: Call) -> Json:
        self.living(call.id, None)
        listed = Call(params=call.params | {"customer": call.id})
        return self.account.payment_methods.page(
            listed, f"/v1/customers/{call.id}/payment_methods", "customer", "type"
        )
