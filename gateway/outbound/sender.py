"""What is sent to a URL that a client named: one request, and as much of the answer as a log can use."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Mapping
from typing import Final

import httpx
import msgspec

from gateway.outbound.caller import Caller, Content, Reply
from gateway.outbound.errors import OutboundError
from gateway.outbound.guard import Guard, open_guard

HEAD_BYTES: Final = 1_024
"""Of an answer's body; what comes after it is never read."""

_CONNECT_SECONDS: Final = 4
"""So that a second address has its turn within the deadline of most requests."""
_STALL_SECONDS: Final = 30
"""Without a byte taken or sent. A long request has long for all of it, not to hold a place by silence."""
_BODY_SECONDS: Final = 2
"""The status is what counts: who is slow to say more is not waited for."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Whatever its status: also a redirect, which is not followed."""

    status: int
    latency_ms: int
    """From the call until the status was there."""
    body_head: bytes


class Sender:
    """Sends. One per process; nothing of it is to be closed."""

    def __init__(self, guard: Guard, *, tls: ssl.SSLContext | None = None) -> None:
        """`tls` None: certificates of public authorities."""
        self._caller = Caller(guard, tls=tls)

    async def send(
        self,
        method: str,
        url: str,
        *,
        content: Content,
        headers: Mapping[str, str],
        timeout: float,  # noqa: ASYNC109 - of a request, as everywhere
    ) -> Answer:
        """Send one request, with `timeout` seconds for everything; names of headers are in lower case.

        A stream of a known length has it in `content-length`.

        Raises:
            OutboundError: there was no answer; with the reason. BadUrl: there never can be one.
        """
        started = time.perf_counter()
        limits = httpx.Timeout(min(timeout, _STALL_SECONDS), connect=min(timeout, _CONNECT_SECONDS))
        answer = None
        try:
            async with asyncio.timeout(timeout):
                target = self._caller.guard.parse(url)
                async with self._caller.ask(
                    method, target, headers=headers, content=content, limits=limits
                ) as reply:
                    answer = Answer(
                        status=reply.status,
                        latency_ms=round((time.perf_counter() - started) * 1000),
                        body_head=b"",
                    )
                    head = await _head(reply)
            return msgspec.structs.replace(answer, body_head=head)
        except TimeoutError:
            if answer is None:
                raise OutboundError("the URL did not answer in time") from None
        except OutboundError:
            if answer is None:
                raise
        return answer


def open_sender(*, allow_private_hosts: bool) -> Sender:
    """With the rules of an installation."""
    return Sender(open_guard(allow_private_hosts=allow_private_hosts))


async def _head(reply: Reply) -> bytes:
    """As much as comes in time."""
    head = bytearray()
    with contextlib.suppress(TimeoutError, OutboundError):
        async with asyncio.timeout(_BODY_SECONDS):
            async for block in reply.blocks:
                head += block
                if len(head) >= HEAD_BYTES:
                    break
    return bytes(head[:HEAD_BYTES])
