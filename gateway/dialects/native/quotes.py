"""`POST /v1/audio/quotes`: the most that a request can cost, before it is made."""

import msgspec
from litestar import post
from litestar.params import JSONBody
from litestar.status_codes import HTTP_200_OK

import billing
from gateway.dialects.native.body import GenerationBody
from gateway.dialects.native.checking import check_asked
from gateway.dialects.native.documents import QUOTE_ERRORS
from gateway.dialects.native.guarding import GatewayRequest
from gateway.dialects.native.render import iso


class QuoteView(msgspec.Struct, kw_only=True):
    """What a generation can cost at most at the price of now."""

    object: str = "quote"
    model: str
    task: str
    max_cost_usd: str
    usd_per_second: str
    list_usd_per_second: str
    billable_seconds: float
    outputs: int
    price_version: str
    expires_at: str
    available_usd: str
    warnings: list[str]
    test: bool


@post("/audio/quotes", status_code=HTTP_200_OK, summary="Quote a generation", responses=QUOTE_ERRORS)
async def create_quote(request: GatewayRequest, data: JSONBody[GenerationBody]) -> QuoteView:
    """Quote a generation.

    Takes the body of a generation and refuses what a generation would refuse before it looks at limits
    and money. Nothing is written, held or counted. Send `max_cost_usd` of the quote with the generation,
    and it is not accepted for more.
    """
    found = await check_asked(request, data)
    model, checked = found.model, found.checked
    quote = await request.desk.jobs.quote(request.auth, model, checked.request)
    return QuoteView(
        model=model.id,
        task=checked.request.task.value,
        max_cost_usd=billing.format_usd(quote.most_nano),
        usd_per_second=billing.format_usd(quote.price.net_nano_per_second),
        list_usd_per_second=billing.format_usd(quote.price.nano_per_second),
        billable_seconds=quote.length_ms / 1000,
        outputs=quote.outputs,
        price_version=quote.price.id.hex,
        expires_at=iso(quote.expires_at),
        available_usd=billing.format_usd(quote.available_nano),
        warnings=[*checked.warnings, *quote.warnings],
        test=quote.test,
    )
