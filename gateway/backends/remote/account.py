"""Our account at a provider: what it holds, and whether the provider serves it at this moment."""

import asyncio
from typing import Final

import structlog

from gateway.backends.base import BackendUnavailable, Reason
from gateway.backends.remote.pace import Pace
from gateway.backends.remote.provider import Provider

_REST_SECONDS: Final = 5.0
"""After a refusal for too many calls that does not say for how long."""
_LONGEST_REST_SECONDS: Final = 300.0
_BLIND_SECONDS: Final = 900.0
"""Without credit and without a word on the balance: then a job tries."""

log = structlog.get_logger(__name__)


class Account:
    """Remembers refusals that hold for all models, and asks for the balance."""

    def __init__(self, provider: Provider, pace: Pace) -> None:
        self._provider = provider
        self._pace = pace
        self.balance_nano: int | None = None
        self._no_credit_until = 0.0
        self._left_nano = 0
        """What the account held when credit was refused: less than a song, as a rule, and not nothing."""
        self._rests_until = 0.0
        self._is_told = False
        self._refused = asyncio.Event()

    @property
    def no_credit(self) -> bool:
        """The provider refuses to serve an empty account, as far as we know."""
        return self._pace.clock() < self._no_credit_until

    @property
    def resting_seconds(self) -> float:
        """Until the provider wants to hear of us again; 0: now."""
        return max(0.0, self._rests_until - self._pace.clock())

    @property
    def why(self) -> Reason | None:
        """Why nothing is sent now."""
        if self.no_credit:
            return Reason.NO_CREDIT
        return Reason.RATE_LIMITED if self.resting_seconds > 0 else None

    def note_rate_limit(self, retry_after_seconds: float | None) -> None:
        """The provider has had too many calls."""
        seconds = min(max(retry_after_seconds or _REST_SECONDS, 1.0), _LONGEST_REST_SECONDS)
        self._rests_until = max(self._rests_until, self._pace.clock() + seconds)

    def note_no_credit(self) -> None:
        """The provider wants to be paid: an operator is told once, until it has served us again."""
        self._no_credit_until = self._pace.clock() + _BLIND_SECONDS
        self._refused.set()
        if not self._is_told:
            self._is_told = True
            log.error("provider.no_credit", provider=self._provider.name, balance_nano=self.balance_nano)

    def note_served(self) -> None:
        """The provider has accepted something."""
        self._is_told = False

    async def ask(self, *, early: bool = False) -> bool:
        """Learn the balance; whether there is credit again.

        `early`: just after a refusal, which is believed more than what is left.
        """
        try:
            self.balance_nano = await self._provider.balance_nano()
        except BackendUnavailable as error:
            log.warning("provider.balance_unknown", provider=self._provider.name, reason=error.reason.value)
            return False
        except Exception:
            # A defect of one adapter must not end what is watched for all of them.
            log.exception("provider.balance_broken", provider=self._provider.name)
            return False
        if early:
            self._left_nano = max(self.balance_nano, 0)
        if early or not self.no_credit:
            return False
        if 0 < self.balance_nano <= self._left_nano:
            return False  # nobody has paid, and a job tries in the end all the same
        if self.balance_nano <= 0:
            self._no_credit_until = self._pace.clock() + _BLIND_SECONDS
            return False
        self._no_credit_until = 0.0
        log.info("provider.credit_again", provider=self._provider.name, balance_nano=self.balance_nano)
        return True

    async def rest(self) -> bool:
        """Until the next question; whether it comes early, because credit was refused."""
        sleeping = asyncio.ensure_future(self._pace.sleep(self._pace.balance_seconds))
        refused = asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait([sleeping, refused], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            refused.cancel()
        early = self._refused.is_set()
        self._refused.clear()
        return early
