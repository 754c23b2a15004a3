"""CUDA graphs: a step's launches recorded once and played back without the host."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

import torch

ValueT = TypeVar("ValueT")

_log = logging.getLogger(__name__)
_WARM_UPS: Final = 2
"""Before recording: libraries make their handles, compilers their kernels."""


class Recorder:
    """What the graphs of one device share: a stream to record on, and memory for what lives inside a step.

    Sharing that memory is safe because a step keeps nothing in it (inputs and output lie outside), and
    because the engine plays one graph at a time.
    """

    def __init__(self, device: torch.device, *, enabled: bool = True) -> None:
        self.device = device
        self.enabled = enabled and device.type == "cuda"
        self.note = "on" if self.enabled else ("off" if device.type == "cuda" else "off: no CUDA device")
        self.recorded = 0
        if self.enabled:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self.pool = torch.cuda.graph_pool_handle()

    def give_up(self, error: Exception) -> None:
        """Record nothing any more: the driver or a library refused."""
        self.enabled = False
        self.note = f"off: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        _log.warning("no CUDA graphs: %s", self.note)


class GraphedStep:
    """`step` reads and writes only tensors that stay where they are, and returns one tensor.

    Change its inputs in place, then call. The result is overwritten by the next call. Where nothing can be
    recorded, `step` simply runs. The warm-up takes the step several times; `state` names what must be put
    back after each: counters that a step moves on, but not a cache that is written at such a counter.
    """

    def __init__(
        self, step: Callable[[], torch.Tensor], recorder: Recorder, *, state: Sequence[torch.Tensor] = ()
    ) -> None:
        self._step = step
        self._state = tuple(state)
        self._recorder = recorder
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output: torch.Tensor | None = None

    @property
    def recorded(self) -> bool:
        """Whether the next call plays a graph."""
        return self._graph is not None

    @torch.inference_mode()
    def __call__(self) -> torch.Tensor:
        """Take the step."""
        if self._graph is None and self._recorder.enabled:
            try:
                self._record()
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, NotImplementedError) as error:
                self._graph = None
                self._recorder.give_up(error)
        if self._graph is None or self._output is None:
            return self._step()
        self._graph.replay()
        return self._output

    def _rehearse(self) -> torch.Tensor:
        """Take the step and take it back."""
        before = [tensor.clone() for tensor in self._state]
        result = self._step()
        for tensor, value in zip(self._state, before, strict=True):
            tensor.copy_(value)
        return result

    def _record(self) -> None:
        stream, device = self._recorder.stream, self._recorder.device
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                result = self._rehearse()
            output = torch.empty_like(result)
            del result
        torch.cuda.current_stream(device).wait_stream(stream)
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        # Only this thread is watched: others may allocate pinned memory at the same time. The outer block
        # goes back to the stream of before also when the recording breaks off; the inner one would not.
        with (
            torch.cuda.stream(torch.cuda.current_stream(device)),
            torch.cuda.graph(
                graph, pool=self._recorder.pool, stream=stream, capture_error_mode="thread_local"
            ),
        ):
            output.copy_(self._step())
        self._graph, self._output = graph, output
        self._recorder.recorded += 1


def capture(recorder: Recorder) -> Callable[[Callable[[], torch.Tensor]], GraphedStep]:
    """For steps that are methods: everything that their object counts is put back after the warm-up."""
    return lambda step: GraphedStep(step, recorder, state=counters(getattr(step, "__self__", None)))


def counters(owner: object) -> list[torch.Tensor]:
    """The object's own tensors, and those of its caches, one for each layer, that are not keys and values."""
    held = [] if owner is None else list(vars(owner).values())
    layers = [layer for part in held for layer in getattr(part, "layers", ())]
    kept = [part for layer in layers for name, part in vars(layer).items() if name not in ("keys", "values")]
    return [part for part in [*held, *kept] if isinstance(part, torch.Tensor)]


class Shelf(Generic[ValueT]):
    """The most recently used values, bounded in number and in bytes; the newest always stays."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._values: OrderedDict[Hashable, tuple[ValueT, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def nbytes(self) -> int:
        """Of all values, as they were announced."""
        return sum(size for _, size in self._values.values())

    def take(self, key: Hashable, nbytes: int, make: Callable[[], ValueT]) -> ValueT:
        """The value of `key`; if it is not there, room is made first, and then the value."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        while self._values and (len(self) >= self._most or self.nbytes + nbytes > self._most_bytes):
            self._values.popitem(last=False)
        value = make()
        self._values[key] = (value, nbytes)
        return value

    def clear(self) -> None:
        """Forget everything, to give memory back."""
        self._values.clear()
