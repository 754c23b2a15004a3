"""One way to a model: a backend of this installation, what it calls the model, and what it charges us."""

from typing import Final

import msgspec

from gateway.catalog import Model

ENGINE: Final = "engine"
RUNWARE: Final = "runware"
WAVESPEED: Final = "wavespeed"
REMOTE: Final = (RUNWARE, WAVESPEED)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One configured way to make a model's music."""

    backend: str
    model: Model
    remote_model: str | None = None
    """The provider's name of the model; None: our own engine."""
    nano_per_second: int | None = None
    """What the provider charges us, as far as the catalog knows; our own engine: 0."""

    @property
    def queue(self) -> str:
        """Where its jobs wait."""
        return self.model.id if self.backend == ENGINE else remote_queue(self.backend, self.model.id)


def remote_queue(backend: str, model: str) -> str:
    """Of jobs of one model that one provider will make."""
    return f"{backend}/{model}"


def backend_of(queue: str) -> str:
    """Whose workers serve a queue."""
    backend, slash, _ = queue.partition("/")
    return backend if slash else ENGINE


def model_of(queue: str) -> str:
    """Of which model the jobs in a queue are."""
    return queue.rpartition("/")[2]
