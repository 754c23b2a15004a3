"""Where decoded chunks go: one buffer in RAM for a whole song, filled while the next chunk is computed."""

import numpy as np
import torch
from numpy.typing import NDArray


class Landing:
    """Samples of one song, chunk after chunk; from CUDA by a stream of its own into pinned memory.

    At most one chunk waits to be copied while the next is computed, so that memory stays bounded.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        on_cuda = device.type == "cuda"
        self._samples = torch.empty(2, samples, pin_memory=on_cuda)
        self._filled = 0
        self._device = device
        self._stream = torch.cuda.Stream(device) if on_cuda else None  # type: ignore[no-untyped-call]
        self._copied: torch.cuda.Event | None = None

    @property
    def share(self) -> float:
        """0 to 1."""
        return self._filled / self._samples.shape[1]

    def put(self, chunk: torch.Tensor) -> None:
        """Take the next samples [2, n]."""
        start, self._filled = self._filled, self._filled + chunk.shape[1]
        if self._stream is None:
            self._samples[:, start : self._filled] = chunk
            return
        if self._copied is not None:
            self._copied.synchronize()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for side, part in zip(self._samples, chunk, strict=True):  # a row is contiguous on both ends
                side[start : self._filled].copy_(part, non_blocking=True)
            chunk.record_stream(self._stream)
            self._copied = self._stream.record_event()

    def samples(self) -> NDArray[np.float32]:
        """Everything that was put: [2, n]."""
        if self._copied is not None:
            self._copied.synchronize()
        whole: NDArray[np.float32] = self._samples[:, : self._filled].numpy()
        return whole
