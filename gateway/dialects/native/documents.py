"""What OpenAPI says about answers other than success."""

from typing import Final

from litestar.openapi.datastructures import ResponseSpec

from gateway.dialects.native.errors import ErrorEnvelope


def _spec(description: str) -> ResponseSpec:
    return ResponseSpec(data_container=ErrorEnvelope, description=description, generate_examples=False)


ERRORS: Final = {
    400: _spec("A field cannot be used; `error.param` names it."),
    401: _spec("No key, or not a valid one."),
    403: _spec("The key may not do this."),
    404: _spec("Nothing there that this key may see."),
    405: _spec("The path exists, with another method."),
    409: _spec("The request does not fit the present state."),
    503: _spec("Not now; nothing was reserved. See Retry-After."),
}
SUBMIT_ERRORS: Final = ERRORS | {
    402: _spec("Credit or budget does not cover the most that the job can cost; nothing was reserved."),
    413: _spec("The body is too large."),
    415: _spec("The body is not JSON."),
    422: _spec("The Idempotency-Key was used with another body."),
    429: _spec("A limit of this key; see Retry-After."),
}
