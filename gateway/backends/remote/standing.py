"""Whether a provider is worth a try: its circuits, one for each model, and our account there."""

import uuid
from collections.abc import Mapping
from typing import Final

from gateway.backends.base import BackendUnavailable, Reason, SubmitAmbiguous
from gateway.backends.remote.account import Account
from gateway.backends.remote.breaker import Breaker, Permit
from gateway.backends.remote.pace import Pace
from gateway.backends.remote.provider import Provider
from gateway.jobs.job import JobErrorCode
from gateway.routing import Circuit, RouteHealth

_COUNTED: Final = frozenset(
    {
        JobErrorCode.UPSTREAM_ERROR,
        JobErrorCode.TIMEOUT,
        JobErrorCode.QUALITY_FAILED,
        JobErrorCode.OUT_OF_MEMORY,
    }
)
"""What speaks against a backend; refused content, unreadable input and cancellations do not."""


class Standing:
    """Of one provider, as this process sees it."""

    def __init__(self, provider: Provider, models: Mapping[str, str], pace: Pace) -> None:
        self._name = provider.name
        self._breakers = {model: Breaker(pace.clock, rng=pace.rng) for model in sorted(models)}
        self.account = Account(provider, pace)

    def breaker(self, model: str) -> Breaker | None:
        """None: the model is not made here."""
        return self._breakers.get(model)

    def open_models(self) -> list[str]:
        """Worth a try at this moment."""
        if self.account.why is not None:
            return []
        return [model for model, breaker in self._breakers.items() if breaker.lets_through]

    def admit(self, model: str, owner: uuid.UUID) -> tuple[Breaker, Permit]:
        """Leave for one attempt; raises BackendUnavailable."""
        if (why := self.account.why) is not None:
            raise BackendUnavailable(
                f"{self._name} serves us nothing at the moment: {why.value}",
                reason=why,
                retry_after_seconds=self.account.resting_seconds or None,
            )
        breaker = self._breakers.get(model)
        if breaker is None:
            raise BackendUnavailable(f"{model} is not made at {self._name}", reason=Reason.MISCONFIGURED)
        permit = breaker.admit(owner)
        if permit is None:
            raise BackendUnavailable(
                f"{self._name} is not tried at the moment", retry_after_seconds=breaker.open_seconds
            )
        return breaker, permit

    def learn(self, breaker: Breaker, permit: Permit, error: BaseException) -> None:
        """From an attempt that never began."""
        refusal = error.__cause__ if isinstance(error, SubmitAmbiguous) else error
        if isinstance(refusal, BackendUnavailable):  # of a part, at least
            self._learn_refusal(breaker, permit, refusal)
        elif isinstance(error, SubmitAmbiguous):
            breaker.failed(permit, Reason.OUTAGE.value)
        else:
            breaker.released(permit)

    def _learn_refusal(self, breaker: Breaker, permit: Permit, error: BackendUnavailable) -> None:
        reason = error.reason
        match reason:
            case Reason.OUTAGE:
                breaker.failed(permit, reason.value)
            case Reason.MISCONFIGURED:
                breaker.failed(permit, reason.value, for_certain=True)
            case Reason.NO_CREDIT:
                self.account.note_no_credit()
                breaker.failed(permit, reason.value, for_certain=True)
                for other in self._breakers.values():
                    other.trip(reason.value)
            case Reason.RATE_LIMITED:
                self.account.note_rate_limit(error.retry_after_seconds)
                breaker.released(permit)
            case _:
                breaker.released(permit)

    def count(self, breaker: Breaker, permit: Permit, code: JobErrorCode) -> None:
        """An attempt that failed."""
        if code in _COUNTED:
            breaker.failed(permit, code.value)
        else:
            breaker.released(permit)

    def health(self, running: Mapping[str, int], capacity: int) -> list[RouteHealth]:
        """Of each model; `running`: tasks under way."""
        return [
            self._health(model, breaker, running.get(model, 0), capacity)
            for model, breaker in self._breakers.items()
        ]

    def _health(self, model: str, breaker: Breaker, running: int, capacity: int) -> RouteHealth:
        why = self.account.why
        return RouteHealth(
            backend=self._name,
            model=model,
            circuit=Circuit.OPEN if why else breaker.circuit,
            why=why.value if why else breaker.why,
            open_seconds=(self.account.resting_seconds or None) if why else breaker.open_seconds,
            running=running,
            capacity=capacity,
            latency_seconds=breaker.latency_seconds,
            error_rate=breaker.error_rate,
            balance_nano=self.account.balance_nano,
            no_credit=self.account.no_credit,
        )

    async def watch_account(self) -> None:
        """Endless: what the account holds, from time to time and when credit was refused."""
        early = False
        while True:
            if await self.account.ask(early=early):
                for breaker in self._breakers.values():
                    breaker.try_again()
            early = await self.account.rest()
