"""The stand-in as a running server: in a test's own event loop, or alone."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from tests.providers.stripe import served
from tests.providers.wavespeed.faults import Fault, Faults, Outputs, TaskFails, Where
from tests.providers.wavespeed.hooks import Hook, HookKind, HookSender
from tests.providers.wavespeed.predictions import START_BALANCE_NANO, Account, Prediction
from tests.providers.wavespeed.requests import Recorded
from tests.providers.wavespeed.server import Server

API_KEY = "wsk_stand_in_of_the_provider"
LOOPBACK = "127.0.0.1"


class WaveSpeedStandIn:
    """The vendor behind a socket, and what a test can do to it. Times are seconds."""

    def __init__(self, key: str = API_KEY, balance_nano: int = START_BALANCE_NANO) -> None:
        self.url = ""
        """Origin; paths begin `/api/v3/`."""
        self.key = key
        self.processing_seconds: float | None = 0.2
        """How long a prediction takes; None: until `complete` or `fail`."""
        self.sync_seconds = 100.0
        """For how long sync mode holds the answer before it gives up with code 5004."""
        self.list_lag_seconds = 0.0
        """How old a prediction is when the list first has it."""
        self.tasks_at_once: int | None = None
        """How many predictions an account may have running; more submits are answered 429."""
        self.requests: list[Recorded] = []
        """All requests but those of control, in order; may be cleared."""
        self.faults = Faults()
        self.accounts: dict[str, Account] = {}
        self.sender = HookSender(self.faults)
        self._server = Server(self)
        self._listening = AsyncExitStack()
        self.add_account(key, balance_nano)

    @property
    def predictions(self) -> dict[str, Prediction]:
        """All that were ever accepted, of every account, oldest first; also the deleted ones."""
        return {one.id: one for account in self.accounts.values() for one in account.predictions.values()}

    @property
    def submits(self) -> int:
        """How many submits came, accepted or not."""
        return sum(one.kind == "submit" for one in self.requests)

    @property
    def polls(self) -> int:
        return sum(one.kind == "poll" for one in self.requests)

    @property
    def hooks(self) -> list[Hook]:
        """Each delivery of a webhook that was tried."""
        return self.sender.sent

    @property
    def balance_nano(self) -> int:
        return self.accounts[self.key].balance_nano

    @balance_nano.setter
    def balance_nano(self, nano: int) -> None:
        self.accounts[self.key].balance_nano = nano

    @property
    def webhook_secret(self) -> str:
        return self.accounts[self.key].webhook_secret

    def add_account(self, key: str, balance_nano: int = START_BALANCE_NANO) -> Account:
        """Another customer of the vendor."""
        account = self.accounts[key] = Account(key, balance_nano)
        account.on_end = self.sender.ended
        return account

    def fail_next(self, where: Where, fault: Fault, times: int | None = 1) -> None:
        """The fault befalls the next `times` requests of that kind; None: all until `clear_faults`."""
        self.faults.add(where, fault, times)

    def clear_faults(self) -> None:
        """No more faults; what is delayed goes on at once."""
        self.faults.clear()

    def complete(self, prediction_id: str, outputs: Outputs | None = None) -> None:
        """It ends now, and well; with other outputs if told."""
        account, prediction = self._find(prediction_id)
        prediction.outputs = outputs or prediction.outputs
        prediction.outcome = None
        account.end(prediction)

    def fail(self, prediction_id: str, outcome: TaskFails | None = None) -> None:
        """It ends now, and badly."""
        account, prediction = self._find(prediction_id)
        prediction.outcome = outcome or TaskFails()
        account.end(prediction)

    async def send_hook(self, prediction_id: str, kind: HookKind = "good", *, url: str | None = None) -> Hook:
        """Send its webhook now, as it stands; to where it asked for it unless told otherwise."""
        account, prediction = self._find(prediction_id)
        return await self.sender.send(account, prediction, kind, url=url)

    async def hooks_settled(self) -> None:
        """Wait until no webhook is on its way any more; those that wait for a retry count as on their way."""
        await self.sender.settled()

    @asynccontextmanager
    async def down(self) -> AsyncIterator[None]:
        """Connections are refused inside; predictions go on."""
        await self._stop_listening()
        try:
            yield
        finally:
            await self._listen(urlsplit(self.url).hostname or LOOPBACK, urlsplit(self.url).port or 0)

    def _find(self, prediction_id: str) -> tuple[Account, Prediction]:
        for account in self.accounts.values():
            if prediction_id in account.predictions:
                return account, account.predictions[prediction_id]
        raise LookupError(f"there is no prediction {prediction_id}")

    async def _listen(self, host: str, port: int) -> None:
        self.url = await self._listening.enter_async_context(served(self._server, host, port))

    async def _stop_listening(self) -> None:
        self._server.hang_up()
        await self._listening.aclose()

    async def _close(self) -> None:
        self.clear_faults()
        await self._stop_listening()
        for one in self.predictions.values():
            if one.timer:
                one.timer.cancel()
        await self.sender.close()


@asynccontextmanager
async def running(
    port: int = 0, *, host: str = LOOPBACK, key: str = API_KEY, balance_nano: int = START_BALANCE_NANO
) -> AsyncIterator[WaveSpeedStandIn]:
    """A stand-in in this event loop; on a free port of the loopback interface unless told otherwise."""
    stand_in = WaveSpeedStandIn(key, balance_nano)
    await stand_in._listen(host, port)
    try:
        yield stand_in
    finally:
        await stand_in._close()
