"""What an operator asks for and sees: models to load, and how they fare. Free of torch."""

from enum import StrEnum

import msgspec

from engine.variants import VARIANTS


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One model to load."""

    name: str
    """Public name."""
    source: str
    """Folder or hub repository."""
    variant: str
    """A name of `engine.variants.VARIANTS`: what it can do, and what holds where a request says nothing."""
    donor: str | None = None
    """Where the audio tokenizers come from if `source` has none."""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"there is no variant {self.variant!r}; there are {', '.join(VARIANTS)}")


class ModelLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one model takes on at once."""

    requests: int = 8
    memory_bytes: int | None = None
    """All of the memory that it may fill, weights included; None: measured when nothing renders."""
    chunk_frames: int = 512
    """Latent frames that are decoded at once: 20.48 s."""


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may change about models with weights; the defaults suit a machine of their own."""

    limits: ModelLimits = ModelLimits()
    warm_up_seconds: float | None = 10.0
    """Length of the first song, which nobody hears; None: the first customer waits instead."""
    leak_bytes: int | None = 2_000_000_000
    """What may stay after batches, caches included, before a worker is worn out; None: somebody else in this
    process watches that."""
    threads: int | None = None
    """Of a model on the CPU; None: as many as torch takes by itself."""


class LoadState(StrEnum):
    """How far a model is."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as an operator wants to know it."""

    model: str
    state: LoadState
    warm: bool
    """Whether a song has been through every phase, so that the next one waits for no compiler or cache."""
    load_seconds: float | None = None
    """From the start of loading to ready, warm-up included; None: not there yet, or nothing to load."""
    realtime_factor: float | None = None
    """Seconds of audio for each second of engine time, smoothed over the last batches; None: none yet."""
    longest_seconds: float | None = None
    """The longest single song that fits into memory by the estimate; None: no estimate is made."""
    reads_codes: bool = True
    """Whether it has the audio tokenizers that covers and plans need."""
    error: str | None = None
    """Why loading failed."""
    waiting: int = 0
    """Requests of this model that wait."""
