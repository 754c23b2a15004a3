"""From noise to music: the steps of a batch of songs that share nothing but the forward pass.

Every song has its own length, words, times, guidance and method. All take one step at a time, and those
that are finished or no longer wanted leave the batch. Neighbours change a song by rounding only (about 1e-6
where latents are around 1, in float32), and the same batch gives the same bits again.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic

import msgspec
import torch
from torch.nn.utils.rnn import pad_sequence

from engine.ace_step.dit import BatchT, Denoiser, MemoryT
from engine.ace_step.guidance import Guide
from engine.ace_step.song import Condition, Injection, Song


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """One step of one song."""

    id: str
    step: int
    """1 to `steps`."""
    steps: int


class Denoised(msgspec.Struct, frozen=True, tag=True, eq=False):
    """One song is ready to be decoded; nothing more comes of it."""

    id: str
    latents: torch.Tensor
    """[T, D], float32, on the transformer's device."""


def denoise(
    dit: Denoiser[MemoryT, BatchT], songs: Sequence[Song], wanted: Callable[[str], bool]
) -> Iterator[StepDone | Denoised]:
    """Render one batch. Before each step `wanted` is asked about every song; a no ends that song in silence.

    After each step comes a StepDone for every song that took it, in the order of `songs`; Denoised follows a
    song's last one at once. To give up the whole batch, close the iterator.
    """
    forward, pace = _Forward(dit), _Pace(dit.device)
    runs = [_Run(song, dit.device) for song in songs]
    while runs := [run for run in runs if wanted(run.song.id)]:
        _step(forward, runs)
        pace.keep()
        for run in runs:
            yield StepDone(run.song.id, run.step, run.steps)
            if run.step == run.steps:
                yield Denoised(run.song.id, run.latents)
        runs = [run for run in runs if run.step < run.steps]


_Parts = tuple[Condition, torch.Tensor]
"""What of a row stays the same from step to step: condition and context."""


class _Row(msgspec.Struct, frozen=True, eq=False):
    """One question to the transformer; a guided song asks two."""

    condition: Condition
    context: torch.Tensor
    latents: torch.Tensor
    """[T, D], without padding."""
    t: torch.Tensor
    """A number on the device."""


class _Run:
    """One song under way, with what it remembers from step to step."""

    def __init__(self, song: Song, device: torch.device) -> None:
        self.song = song
        self.step = 0
        self.steps = len(song.timesteps)
        self.latents = (song.noise if song.start is None else song.start).to(device, torch.float32)
        if len(self.latents) != song.frames:
            raise ValueError(f"song {song.id}: {len(self.latents)} frames of noise, {song.frames} of context")
        times = torch.tensor([*song.timesteps, 0.0], dtype=torch.float32)
        self._times: list[float] = times.tolist()
        self._clock = times.to(device)
        self._strides: list[float] = times.diff().tolist()
        self._guide = None if song.guidance is None else Guide(song.guidance)
        self._fresh = None if song.sde_seed is None else torch.Generator().manual_seed(song.sde_seed)

    def rows(self) -> list[_Row]:
        """The song's own row and, where this step is guided, the one without the prompt."""
        condition, context, t = self.song.condition, self.song.context, self._clock[self.step]
        if self.song.switch is not None and self.step >= self.song.switch.step:
            condition, context = self.song.switch.condition, self.song.switch.context
        conditions = [condition]
        if self._guide is not None and self._guide.holds(self.song.timesteps[self.step]):
            conditions.append(self._guide.null)
        return [_Row(condition, context, self.latents, t) for condition in conditions]

    def advance(self, velocities: Sequence[torch.Tensor]) -> None:
        """Take one step along the answers to `rows`."""
        velocity, t = velocities[0], self._times[self.step]
        if self._guide is not None and len(velocities) > 1:
            velocity = self._guide.velocity(velocity, velocities[1], latents=self.latents, t=t)
        following = self._times[self.step + 1]
        if self._fresh is None:
            self.latents = self.latents + self._strides[self.step] * velocity
        else:
            self.latents = self._noised(self.latents - t * velocity, following, self._fresh)
        injection = self.song.injection
        if injection is not None and self.step < injection.steps:
            self.latents = self._injected(injection, following)
        self.step += 1

    def _noised(self, clean: torch.Tensor, t: float, generator: torch.Generator) -> torch.Tensor:
        """The predicted music, brought back to time t with noise of its own.

        Drawn on the CPU in float32, so that a seed means the same song on every device.
        """
        if t == 0.0:
            return clean
        fresh = torch.randn(clean.shape, generator=generator).to(clean.device)
        return t * fresh + (1.0 - t) * clean

    def _injected(self, injection: Injection, t: float) -> torch.Tensor:
        device = self.latents.device
        source = (1.0 - t) * injection.source.to(device, torch.float32)
        source = source + t * self.song.noise.to(device, torch.float32)
        return torch.where(injection.keep.to(device)[:, None], source, self.latents)


class _Pace:
    """Lets the host prepare one step while a GPU takes another; no event is further ahead of the work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: torch.cuda.Event | None = None

    def keep(self) -> None:
        """After each step is on its way: wait until the one before is done."""
        if self._device.type != "cuda":
            return
        before, self._before = self._before, torch.cuda.current_stream(self._device).record_event()
        if before is not None:
            before.synchronize()


class _Forward(Generic[MemoryT, BatchT]):
    """Asks the transformer, and computes anew only what changed since the last step."""

    def __init__(self, dit: Denoiser[MemoryT, BatchT]) -> None:
        self._dit = dit
        self._memories: dict[Condition, MemoryT] = {}
        self._batch: tuple[list[_Parts], BatchT] | None = None

    def __call__(self, rows: list[_Row]) -> list[torch.Tensor]:
        """The velocity of each row, [T, D] of its own T."""
        latents = pad_sequence([row.latents for row in rows], batch_first=True)
        times = torch.stack([row.t for row in rows])
        velocities = self._dit.velocity(self._prepared(rows), latents, times)
        return [velocity[: len(row.latents)] for row, velocity in zip(rows, velocities, strict=True)]

    def _prepared(self, rows: list[_Row]) -> BatchT:
        parts = [(row.condition, row.context) for row in rows]
        if self._batch is not None and _same(self._batch[0], parts):
            return self._batch[1]
        self._batch = None  # keys and values of long lyrics fill hundreds of megabytes: never hold two
        known, self._memories = self._memories, {}
        for condition, _ in parts:
            if condition not in self._memories:
                self._memories[condition] = (
                    known[condition] if condition in known else self._dit.memory(condition)
                )
        memories = [self._memories[condition] for condition, _ in parts]
        batch = self._dit.batch([context for _, context in parts], memories)
        self._batch = parts, batch
        return batch


@torch.no_grad()
def _step(forward: _Forward[MemoryT, BatchT], runs: Sequence[_Run]) -> None:
    """One step of every run, with one forward pass."""
    rows = [run.rows() for run in runs]
    answers = iter(forward([row for own in rows for row in own]))
    for run, own in zip(runs, rows, strict=True):
        run.advance([next(answers) for _ in own])


def _same(before: list[_Parts], now: list[_Parts]) -> bool:
    return len(before) == len(now) and all(
        one[0] is other[0] and one[1] is other[1] for one, other in zip(before, now, strict=True)
    )
