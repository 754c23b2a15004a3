"""What OpenAPI says about answers beside the first one, and about query parameters."""

from typing import Any, Final

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema
from litestar.params import QueryParameter

from gateway.dialects.native.errors import ErrorEnvelope
from gateway.dialects.native.render import JobView

Specs = dict[int, ResponseSpec]

ID: Final = "^[0-9a-f]{32}$"
MONTH: Final = "^[1-9][0-9]{3}-(0[1-9]|1[0-2])$"
LINE: Final = "^[1-9][0-9]{0,17}$"
"""Id of a line of the ledger."""
MOMENTS: Final = [
    Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=253_402_300_799),
    Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME),
    Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE),
]


def _spec(description: str) -> ResponseSpec:
    return ResponseSpec(data_container=ErrorEnvelope, description=description, generate_examples=False)


ERRORS: Final[Specs] = {
    400: _spec("A field cannot be used; `error.param` names it. Or it is no valid HTTP."),
    401: _spec("No key, or not a valid one."),
    403: _spec("The key may not do this."),
    408: _spec("The request did not arrive in time; nothing was done with it."),
    431: _spec("The head of the request is too large."),
    503: _spec("Not now; nothing was reserved. See Retry-After."),
}
"""Of every operation: what the server says before it knows which one is meant, and the key's."""
FINDING_ERRORS: Final[Specs] = ERRORS | {404: _spec("Nothing there that this key may see.")}
FILE_ERRORS: Final[Specs] = ERRORS | {
    413: _spec("The file is too large or too long, or there are too many."),
    415: _spec("The body is no form, or the file is no audio of a kind that is taken."),
    429: _spec("Too many uploads at once; see Retry-After."),
}
CANCEL_ERRORS: Final[Specs] = FINDING_ERRORS | {409: _spec("The job has ended already.")}
QUOTE_ERRORS: Final[Specs] = ERRORS | {
    404: _spec("There is no such model, or no such file."),
    413: _spec("The body is too large."),
    415: _spec("The body is not JSON."),
}
SUBMIT_ANSWERS: Final[Specs] = ERRORS | {
    200: ResponseSpec(
        data_container=JobView,
        description="The finished job; only with `Prefer: wait`.",
        generate_examples=False,
    ),
    402: _spec("Credit or budget does not cover the most that the job can cost; nothing was reserved."),
    404: _spec("There is no such model, or no such file."),
    409: _spec(
        "The job can cost more than `max_cost_usd`; or the first request with this Idempotency-Key has not "
        "been decided yet."
    ),
    413: _spec("The body is too large."),
    415: _spec("The body is not JSON."),
    422: _spec("The Idempotency-Key was used with another body."),
    429: _spec("A limit of this key; see Retry-After."),
}


def query(description: str, *, name: str | None = None, **facts: Any) -> QueryParameter:
    """An optional parameter. `facts` are keywords of its schema; the handler itself checks them.

    It can be left out, but there is no null in a query.
    """
    return QueryParameter(name=name, description=description, schema_extra={"one_of": None, **facts})
