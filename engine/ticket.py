"""The caller's handle on one submitted request."""

from collections.abc import Callable
from concurrent.futures import Future

from engine.errors import Canceled, EngineError
from engine.schema import EngineRequest, EngineResult


class Ticket:
    """Progress, result and cancellation of one request; every member may be used from any thread.

    The future ends with a result or an EngineError. `future.cancel()` does nothing: `cancel()` is the way.
    """

    def __init__(self, request: EngineRequest, withdraw: Callable[["Ticket"], None]) -> None:
        self.request = request
        self.future: Future[EngineResult] = Future()
        # Marked running at once: a future that its reader can cancel could not be resolved by the thread.
        self.future.set_running_or_notify_cancel()
        self._withdraw = withdraw
        self._progress = 0.0
        self._canceled = False

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def progress(self) -> float:
        """0 to 1, never falling; 1 only with a result."""
        return self._progress

    @property
    def canceled(self) -> bool:
        """Whether cancellation was asked for, effective or not."""
        return self._canceled

    def cancel(self) -> None:
        """Ask for the end: at once while waiting, between two steps while rendering, no effect afterwards."""
        self._canceled = True
        self._withdraw(self)

    def advance(self, fraction: float) -> None:
        """For the engine's thread: one step is done."""
        self._progress = max(self._progress, min(float(fraction), 0.999))

    def succeed(self, result: EngineResult) -> None:
        """For the engine's thread: the song is there, even if cancellation came a moment too late."""
        self._progress = 1.0
        self.future.set_result(result)

    def fail(self, error: EngineError) -> None:
        """For the engine's thread, or for whoever took the ticket out of the queue."""
        self.future.set_exception(error)

    def end_as_canceled(self) -> None:
        self.fail(Canceled(f"request {self.id} was canceled"))
