"""The calls of one task on their way to a provider: all of them arrive, or what did is given up."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

import msgspec
import structlog

from gateway.backends.base import BackendUnavailable, Reason, SubmitAmbiguous
from gateway.backends.remote.pace import Pace
from gateway.backends.remote.provider import Call, Provider, Refused

SENDS_AT_ONCE: Final = 16
_LONGEST_WAIT_SECONDS: Final = 10.0
"""For a provider that says when to come again."""
_LASTING: Final = frozenset({Reason.MISCONFIGURED, Reason.NO_CREDIT})
"""Nothing that passes while a job waits."""

Answer = str | Refused | BackendUnavailable | SubmitAmbiguous
"""The id of a task at the provider, or why there is none."""

log = structlog.get_logger(__name__)


class Courier:
    """Brings calls to one provider, several tasks' at once."""

    def __init__(self, provider: Provider, pace: Pace, *, price: Callable[[Call], int]) -> None:
        """`price`: the most that a call may cost us, in nano-USD."""
        self._provider = provider
        self._pace = pace
        self._price = price
        self._turns = asyncio.Semaphore(SENDS_AT_ONCE)

    async def send(self, calls: Sequence[Call], *, since: datetime) -> list[str]:
        """Their ids at the provider.

        Raises:
            Refused: with the possible cost of those that were taken before.
            BackendUnavailable: nothing was started, for certain.
            SubmitAmbiguous: some were, or may have been.
        """
        # The first one alone: where it is not taken, nothing else is at stake.
        answers = [await _answer(self._delivered(calls[0], since))]
        if isinstance(answers[0], str):
            later = [_answer(self._delivered_in_the_end(call, since)) for call in calls[1:]]
            answers += await asyncio.gather(*later)
        return await self._all_or_none(calls, answers)

    async def find(self, calls: Sequence[Call], *, since: datetime) -> list[str]:
        """The ids of calls that were sent, perhaps, by another process. Raises as `send` does."""
        answers = await asyncio.gather(
            *(_answer(self._cleared_up(call, since, (0.0, *self._pace.find_delays))) for call in calls)
        )
        return await self._all_or_none(calls, answers)

    async def _delivered(self, call: Call, since: datetime) -> str:
        try:
            return await self._sent(call)
        except SubmitAmbiguous as error:
            log.warning("provider.submit_ambiguous", provider=self._provider.name, reason=str(error))
            return await self._cleared_up(call, since, self._pace.find_delays)

    async def _delivered_in_the_end(self, call: Call, since: datetime) -> str:
        """Others of its task were accepted, which is worth some patience."""
        for delay in self._pace.again_delays:
            try:
                return await self._delivered(call, since)
            except BackendUnavailable as error:
                wait = max(delay, error.retry_after_seconds or 0.0)
                if error.reason in _LASTING or wait > _LONGEST_WAIT_SECONDS:
                    raise
                await self._pace.sleep(wait)
        return await self._delivered(call, since)

    async def _sent(self, call: Call) -> str:
        async with self._turns:
            try:
                return await self._provider.send(call)
            except (Refused, BackendUnavailable, SubmitAmbiguous):
                raise
            except Exception as error:
                # A defect of ours, after which nobody can tell what the provider has understood.
                log.exception("provider.send_broken", provider=self._provider.name)
                raise SubmitAmbiguous("the call broke off", cost_nano=self._price(call)) from error

    async def _cleared_up(self, call: Call, since: datetime, delays: Sequence[float]) -> str:
        """The id of a call that was sent, perhaps; a few tries, because lists lag behind."""
        for delay in delays:
            if delay:
                await self._pace.sleep(delay)
            try:
                if self._provider.can_resend:
                    return await self._sent_again(call, since)
                if (ref := await self._provider.find(call, since=since)) is not None:
                    return ref
            except _NotThere as error:
                raise error.refusal from error
            except (BackendUnavailable, SubmitAmbiguous) as error:
                # To look is no more than a try, whatever it ran into.
                log.warning("provider.find_failed", provider=self._provider.name, reason=str(error))
        raise SubmitAmbiguous("nobody can tell whether it arrived", cost_nano=self._price(call))

    async def _sent_again(self, call: Call, since: datetime) -> str:
        try:
            return await self._sent(call)
        except BackendUnavailable as refusal:
            # It took nothing this time; what it took the last time is asked for.
            if (ref := await self._provider.find(call, since=since)) is None:
                raise _NotThere(refusal) from refusal
            return ref

    async def _all_or_none(self, calls: Sequence[Call], answers: Sequence[Answer]) -> list[str]:
        refs = [answer for answer in answers if isinstance(answer, str)]
        if len(refs) == len(calls):
            return refs
        await asyncio.gather(*(self._provider.stop(ref) for ref in refs))
        cost = sum(self._at_stake(call, answer) for call, answer in zip(calls, answers, strict=False))
        refused = [answer.failed for answer in answers if isinstance(answer, Refused)]
        if refused:
            failed = min(refused, key=lambda failed: failed.retryable)  # what is final is final
            raise Refused(msgspec.structs.replace(failed, cost_nano=(failed.cost_nano or 0) + cost))
        unavailable = [answer for answer in answers if isinstance(answer, BackendUnavailable)]
        if refs or not unavailable or len(unavailable) < len(answers):
            cause = unavailable[0] if unavailable else None
            raise SubmitAmbiguous("only a part of it was taken, for certain", cost_nano=cost) from cause
        raise unavailable[0]

    def _at_stake(self, call: Call, answer: Answer) -> int:
        """What was taken and given up may still be charged: no provider promises otherwise."""
        if isinstance(answer, SubmitAmbiguous):
            return answer.cost_nano or self._price(call)
        return self._price(call) if isinstance(answer, str) else 0


class _NotThere(Exception):
    """The provider knows no such call, and took none this time."""

    def __init__(self, refusal: BackendUnavailable) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


async def _answer(answer: Awaitable[str]) -> Answer:
    try:
        return await answer
    except (Refused, BackendUnavailable, SubmitAmbiguous) as problem:
        return problem
