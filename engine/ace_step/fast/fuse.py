"""torch.compile for small functions, which may fail and then is only a line in a report."""

import functools
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_VARIANTS: Final = 64
_log = logging.getLogger(__name__)


class Fuser:
    """Compiles functions, or leaves them as they are: `backend` None, or the compiler not at work here.

    The first two dimensions, rows and places, are dynamic: one kernel serves every length, and widths are
    constants in it. If something fails to compile, everything of this fuser runs as plain torch from then on,
    and `note` says why.
    """

    def __init__(self, backend: str | None, *, cache: Path | None = None) -> None:
        self._backend = backend
        self.note = "off" if backend is None else backend
        if backend is not None and cache is not None:
            keep_kernels(cache)
        if backend is not None:
            _allow_variants()

    @property
    def on(self) -> bool:
        """Whether functions are compiled."""
        return self._backend is not None

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, compiled at its first call."""
        if self._backend is None:
            return function
        # dynamic=False: only what is marked. Else a second width would make all sizes variables.
        compiled: Callable[P, R] = torch.compile(
            function, fullgraph=True, dynamic=False, backend=self._backend
        )

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if self._backend is None:
                return function(*args, **kwargs)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of the compiler, about itself
                    _any_length(args)
                    return compiled(*args, **kwargs)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - a compiler can fail in any way, and is never needed
                self._give_up(error)
                return function(*args, **kwargs)

        return call

    def _give_up(self, error: Exception) -> None:
        self.note = f"off: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        self._backend = None
        _log.warning("kernels are not fused: %s", self.note)


def _any_length(args: tuple[object, ...]) -> None:
    """Tell the compiler which sizes change; it would find out by compiling twice."""
    for tensor in args:
        if isinstance(tensor, torch.Tensor) and tensor.ndim > 1:
            for dimension in range(1 if tensor.ndim == 2 else 2):
                torch._dynamo.maybe_mark_dynamic(tensor, dimension)  # noqa: SLF001 - its only home


def _allow_variants() -> None:
    """One function meets a few widths, one row and many: more than the compiler's bound for runaways."""
    config: Any = torch._dynamo.config  # noqa: SLF001 - its only home
    for name in ("recompile_limit", "cache_size_limit"):
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, max(_VARIANTS, getattr(config, name)))
            return


def keep_kernels(folder: Path) -> None:
    """Let compiled kernels outlive the process, unless the environment names a place of its own."""
    for name, part in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
        os.environ.setdefault(name, str(folder / part))


def default_backend(device: torch.device) -> str | None:
    """`inductor` where Triton can compile for the device, else None."""
    if device.type != "cuda" or not hasattr(torch, "compile"):
        return None
    return None if importlib.util.find_spec("triton") is None else "inductor"
