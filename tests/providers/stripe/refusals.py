"""What Stripe answers when it does not do what was asked."""

from typing import Any

DOCS = "https://stripe.com/docs/error-codes/"
SUPPORT = "https://support.stripe.com/"
DOC_NAMES = {  # the object's name in "No such ...", and the parameter that stands for its id in a path
    "customer": ("customer", "id"),
    "checkout.session": ("checkout.session", "session"),
    "payment_method": ("PaymentMethod", "payment_method"),
    "payment_intent": ("payment_intent", "intent"),
    "setup_intent": ("setupintent", "intent"),
    "charge": ("charge", "id"),
    "refund": ("refund", "id"),
    "dispute": ("dispute", "dispute"),
    "balance_transaction": ("balance transaction", "id"),
    "event": ("event", "id"),
}


class Refusal(Exception):
    """An error body of the API with its status."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",  # noqa: A002 - Stripe's own name
        code: str | None = None,
        param: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"message": message, "type": type}
        if code:
            self.error |= {"code": code, "doc_url": DOCS + code.replace("_", "-")}
        if param:
            self.error["param"] = param
        self.error |= {name: value for name, value in more.items() if value is not None}

    def body(self, request_id: str) -> dict[str, Any]:
        log = f"https://dashboard.stripe.com/test/logs/{request_id}"
        return {"error": dict(sorted((self.error | {"request_log_url": log}).items()))}


def missing_object(kind: str, id: str, param: str | None = None) -> Refusal:  # noqa: A002 - an API's id
    """404 for an id in the path, 400 for one in a parameter."""
    name, path_param = DOC_NAMES[kind]
    return Refusal(
        f"No such {name}: '{id}'",
        status=404 if param is None else 400,
        code="resource_missing",
        param=param or path_param,
    )


def missing_parameter(param: str) -> Refusal:
    return Refusal(f"Missing required param: {param}.", code="parameter_missing", param=param)


def unknown_parameter(param: str) -> Refusal:
    return Refusal(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)


def not_implemented(param: str) -> Refusal:
    """Stripe knows the parameter and the stand-in does not act on it: better said than ignored."""
    return Refusal(f"The stand-in does not implement '{param}'.", status=501, type="api_error", param=param)


def unknown_url(method: str, path: str) -> Refusal:
    return Refusal(
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs"
        f" or we can help at {SUPPORT}.",
        status=404,
    )


def no_key() -> Refusal:
    return Refusal(
        "You did not provide an API key. You need to provide your API key in the Authorization header,"
        " using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See"
        f" https://stripe.com/docs/api#authentication for details, or we can help at {SUPPORT}.",
        status=401,
    )


def wrong_key(key: str) -> Refusal:
    shown = f"{key[:8]}{'*' * max(0, len(key) - 12)}{key[-4:]}" if len(key) > 12 else "*" * len(key)
    return Refusal(f"Invalid API Key provided: {shown}", status=401)


def publishable_key() -> Refusal:
    return Refusal(
        "This API call cannot be made with a publishable API key. Please use a secret API key. You can"
        " find a list of your API keys at https://dashboard.stripe.com/account/apikeys.",
        status=401,
        code="secret_key_required",
    )


def wrong_version(version: str) -> Refusal:
    return Refusal(f"Invalid Stripe API version: {version}")


def other_body(key: str) -> Refusal:
    return Refusal(
        "Keys for idempotent requests can only be used with the same parameters they were first used"
        f" with. Try using a key other than '{key}' if you meant to execute a different request.",
        type="idempotency_error",
    )


def other_endpoint(key: str, was: str, now: str) -> Refusal:
    return Refusal(
        "Keys for idempotent requests can only be used for the same endpoint they were first used for"
        f" ('{now}' vs '{was}'). Try using a key other than '{key}' if you meant to execute a different"
        " request.",
        type="idempotency_error",
    )


def key_in_use(key: str) -> Refusal:
    return Refusal(
        "There is currently another in-progress request using this Idempotent Key (that probably means you"
        f" submitted twice, and the other request is still going through): {key}. Please try again later.",
        status=409,
        code="idempotency_key_in_use",
    )


def rate_limited() -> Refusal:
    return Refusal(
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
        status=429,
        code="rate_limit",
    )


def broken() -> Refusal:
    return Refusal(
        f"Sorry, there was an error while processing your request. Contact us at {SUPPORT} if it goes on.",
        status=500,
        type="api_error",
    )
