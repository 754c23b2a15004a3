"""The engine: a bounded queue in front of one daemon thread that renders batch after batch."""

import threading
import traceback
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, assert_never

from engine.errors import (
    EngineClosed,
    EngineError,
    EngineFull,
    InvalidRequest,
    OutOfMemory,
    RenderFailed,
    UnknownModel,
)
from engine.runner import Failed, Finished, Progress, Runner, RunnerEvent
from engine.scheduler import next_batch
from engine.schema import EngineRequest, result_fault
from engine.ticket import Ticket


class Engine:
    """Renders requests in fair order; one request's failure is that request's alone."""

    def __init__(self, runners: Sequence[Runner], *, max_waiting: int = 64) -> None:
        self._runners = {model: runner for runner in runners for model in runner.models}
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: list[Ticket] = []  # guarded by _changed, like the two below
        self._rendering: list[Ticket] = []
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    @property
    def models(self) -> frozenset[str]:
        return frozenset(self._runners)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        with self._changed:
            return len(self._waiting)

    def submit(self, request: EngineRequest) -> Ticket:
        """Queue a request; raises UnknownModel, InvalidRequest (id in use), EngineFull or EngineClosed."""
        if request.model not in self._runners:
            raise UnknownModel(f"this engine has {', '.join(sorted(self._runners))}; not {request.model!r}")
        ticket = Ticket(request, self._withdraw)
        with self._changed:
            if self._closing:
                raise EngineClosed("the engine is shutting down")
            if any(other.id == request.id for other in (*self._waiting, *self._rendering)):
                raise InvalidRequest(f"id {request.id!r} is already in the engine")
            if len(self._waiting) >= self._max_waiting:
                raise EngineFull(f"{self._max_waiting} requests are waiting already")
            self._waiting.append(ticket)
            self._changed.notify_all()
        return ticket

    def close(self, *, drain: bool = False, timeout_s: float | None = 30.0) -> bool:
        """Take nothing new, then finish (drain) or cancel what is inside; False: the thread still runs."""
        with self._changed:
            self._closing = True
            inside = [*self._waiting, *self._rendering]
            self._changed.notify_all()
        if not drain:
            for ticket in inside:
                ticket.cancel()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _withdraw(self, ticket: Ticket) -> None:
        """End a canceled ticket at once if it still waits; the thread ends one that renders."""
        with self._changed:
            if ticket not in self._waiting:
                return
            self._waiting.remove(ticket)
        ticket.end_as_canceled()

    def _serve(self) -> None:
        try:
            while batch := self._take():
                self._render(batch)
                with self._changed:
                    self._rendering = []
        finally:
            self._abandon()

    def _take(self) -> list[Ticket]:
        """Wait for work and move the next batch from waiting to rendering; empty: no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return []
            leader = self._waiting[0].request
            limits = self._runners[leader.model].limits(leader.model)
            chosen = {request.id for request in next_batch([t.request for t in self._waiting], limits)}
            self._rendering = [ticket for ticket in self._waiting if ticket.id in chosen]
            self._waiting = [ticket for ticket in self._waiting if ticket.id not in chosen]
            return self._rendering

    def _render(self, batch: list[Ticket]) -> None:
        """Run one batch to the end of every ticket in it."""
        error = self._run(batch)
        unfinished = [ticket for ticket in batch if not ticket.future.done()]
        if len(batch) > 1:
            # One of them may be the culprit: each is tried alone, so that only the culprit fails.
            for ticket in unfinished:
                self._render([ticket])
        else:
            for ticket in unfinished:
                ticket.fail(error)

    def _run(self, batch: list[Ticket]) -> EngineError:
        """Run one batch; what to tell the tickets that have no outcome afterwards."""
        runner = self._runners[batch[0].request.model]
        live = {ticket.id: ticket for ticket in batch}
        try:
            events = runner.run([ticket.request for ticket in batch], lambda id_: id_ in live)
            _follow(events, live)
        except MemoryError as error:
            return _caused(OutOfMemory("the song did not fit into memory"), error)
        except EngineError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever one request provokes
            return _caused(RenderFailed(f"{type(error).__name__} while rendering"), error)
        return RenderFailed("the runner ended without a result")

    def _abandon(self) -> None:
        """The thread ends: nobody may wait for it any more."""
        with self._changed:
            self._closing = True
            left = [*self._waiting, *self._rendering]
            self._waiting, self._rendering = [], []
        for ticket in left:
            if not ticket.future.done():
                ticket.fail(EngineClosed("the engine has shut down"))


def _follow(events: Iterator[RunnerEvent], live: dict[str, Ticket]) -> None:
    """Pass events on to their tickets; `live` loses each ticket at its end, and an empty one ends the run."""
    _drop_canceled(live)
    while live and (event := next(events, None)) is not None:
        if event.id in live:
            _apply(event, live)
        _drop_canceled(live)
    close = getattr(events, "close", None)
    if close is not None:
        close()


def _apply(event: RunnerEvent, live: dict[str, Ticket]) -> None:
    match event:
        case Progress():
            live[event.id].advance(event.fraction)
        case Finished():
            ticket = live.pop(event.id)
            fault = result_fault(event.result, ticket.request)
            if fault is None:
                ticket.succeed(event.result)
            else:
                ticket.fail(RenderFailed(fault))
        case Failed():
            live.pop(event.id).fail(event.error)
        case _:
            assert_never(event)


def _drop_canceled(live: dict[str, Ticket]) -> None:
    for ticket in [ticket for ticket in live.values() if ticket.canceled]:
        del live[ticket.id]
        ticket.end_as_canceled()


def _caused(error: EngineError, cause: BaseException) -> EngineError:
    # The traceback lives as long as the caller's future; the song-sized buffers in its frames must not.
    traceback.clear_frames(cause.__traceback__)
    error.__cause__ = cause
    return error
