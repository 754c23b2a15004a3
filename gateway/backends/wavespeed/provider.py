"""WaveSpeed as a Provider. It gives the ids and takes none of ours, so nothing is ever sent twice."""

import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

import msgspec
import structlog

from gateway.backends.base import BackendUnavailable, Reason, SubmitAmbiguous
from gateway.backends.remote.connection import Connection, NoResponse, NotSent, RequestFailed, Timeouts
from gateway.backends.remote.provider import Call, Sight
from gateway.backends.wavespeed.looking import MOST_BYTES, PAGE_ITEMS, Look, ask, list_page, see
from gateway.backends.wavespeed.mapping import input_of, price_nano
from gateway.backends.wavespeed.outcomes import no_answer, submitted, unavailable
from gateway.backends.wavespeed.wire import (
    Garbage,
    Input,
    Prediction,
    is_id,
    read_balance_nano,
    read_secret,
)
from gateway.routing import WAVESPEED

TIMEOUTS: Final = Timeouts()
CLOCK_SLACK: Final = timedelta(seconds=60)
"""By so much the vendor's clock may differ from ours."""
MOST_FIND_PAGES: Final = 20
MOST_FIND_SINGLES: Final = 20

log = structlog.get_logger(__name__)


class WaveSpeed:
    """One account there."""

    name: Final = WAVESPEED
    most_at_once: Final = 1
    can_resend: Final = False
    looks_at_once: Final = 10_000

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        price_nano_per_second: Mapping[str, int],
        webhook_url: str | None = None,
        timeouts: Timeouts = TIMEOUTS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`price_nano_per_second`: by its names of models. `webhook_url`: told when a task has ended.

        `base_url`: before `/api/v3`. `tls`: see Connection.
        """
        self._prices = dict(price_nano_per_second)
        self._webhook = {} if webhook_url is None else {"webhook": webhook_url}
        self._connection = Connection(
            base_url=f"{base_url.rstrip('/')}/api/v3", api_key=api_key, timeouts=timeouts, tls=tls
        )

    def new_ref(self) -> None:
        """It gives the ids."""

    async def send(self, call: Call) -> str:
        """Send once; the id of the prediction. Raises BackendUnavailable, SubmitAmbiguous or Refused."""
        asked = input_of(call.request, call.first)
        most_nano = self._most_nano(call, asked)
        try:
            answer = await self._connection.post(
                f"/{quote(call.model)}",
                msgspec.json.encode(asked),
                params=self._webhook,
                max_bytes=MOST_BYTES,
                seconds=self._connection.timeouts.submit,
            )
        except NotSent as error:
            raise BackendUnavailable("wavespeed is not reached", reason=Reason.OUTAGE) from error
        except NoResponse as error:
            raise SubmitAmbiguous(
                "wavespeed did not tell whether it took the request", cost_nano=most_nano
            ) from error
        return submitted(answer, most_nano=most_nano)

    async def find(self, call: Call, *, since: datetime) -> str | None:
        """The prediction with the same input that began nearest to `since`. None: the list has none, yet."""
        asked, earliest = input_of(call.request, call.first), since - CLOCK_SLACK
        twins: list[tuple[timedelta, str]] = []
        mute: list[tuple[timedelta, str]] = []
        for page in range(1, MOST_FIND_PAGES + 1):
            found, length = await list_page(
                self._connection, page, model=call.model, created_after=_iso(earliest)
            )
            fresh = [one for one in found if one.moment is None or one.moment >= earliest]
            for one in fresh:
                distance = CLOCK_SLACK if one.moment is None else abs(one.moment - since)
                if one.asked is None:
                    mute.append((distance, one.id))
                elif _same(one, call.model, asked):
                    twins.append((distance, one.id))
            if length < PAGE_ITEMS or not fresh:
                break
        if twins:
            return min(twins)[1]
        return await self._find_alone([ref for _, ref in sorted(mute)], call.model, asked)

    async def look(self, refs: Sequence[str]) -> Mapping[str, Sight]:
        """The states of tasks: a few by one request each, many from pages of the list."""
        return await Look(self._connection, [ref for ref in refs if is_id(ref)]).run()

    async def stop(self, ref: str) -> None:
        """Delete it, the only way that there is; it is unknown afterwards."""
        if not is_id(ref):
            return
        try:
            answer = await self._connection.post(
                "/predictions/delete",
                msgspec.json.encode({"ids": [ref]}),
                max_bytes=MOST_BYTES,
                seconds=self._connection.timeouts.query,
            )
        except RequestFailed as error:
            log.warning("wavespeed.not_stopped", ref=ref, error=str(error))
            return
        if not answer.is_success:
            log.warning("wavespeed.not_stopped", ref=ref, status=answer.status)

    async def balance_nano(self) -> int:
        """What our account holds. Raises BackendUnavailable."""
        answer = await ask(self._connection.get("/balance", max_bytes=MOST_BYTES))
        if answer.status == 404:  # where newer documentation has it
            answer = await ask(self._connection.get("/account/balance", max_bytes=MOST_BYTES))
        if not answer.is_success:
            raise unavailable(answer)
        try:
            return read_balance_nano(answer.body)
        except Garbage as error:
            raise no_answer() from error

    async def webhook_secret(self) -> str | None:
        """What its webhooks to us are signed with; None while it cannot be had."""
        try:
            answer = await self._connection.get("/webhook/secret", max_bytes=MOST_BYTES)
            return read_secret(answer.body) if answer.is_success else None
        except (RequestFailed, Garbage):
            return None

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def _find_alone(self, refs: Sequence[str], model: str, asked: Input) -> str | None:
        """Among tasks of which the list does not repeat the request."""
        for ref in refs[:MOST_FIND_SINGLES]:
            found = await see(self._connection, ref)
            if found is not None and _same(found, model, asked):
                return ref
        return None

    def _most_nano(self, call: Call, asked: Input) -> int:
        return price_nano(asked.duration or 0, self._prices.get(call.model, 0))


def _same(found: Prediction, model: str, asked: Input) -> bool:
    """Texts and seed exactly; a length may come back in other digits."""
    echo = found.asked
    if echo is None or found.model not in {model, None, ""} or echo.duration is None:
        return False
    rounded = msgspec.structs.replace(echo, duration=asked.duration)
    return rounded == asked and abs(echo.duration - (asked.duration or 0)) < 0.001


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
