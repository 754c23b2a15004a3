"""Chooses the fast parts that this device supports, and only those that agree with the plain ones.

Each part is compared with the plain path on a small random input when a model is loaded, in the model's own
precision. One that differs by more than rounding is switched off, and the report says so.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from engine.ace_step.bundle import Bundle
from engine.ace_step.dit import Attention, Denoiser, Dit
from engine.ace_step.fast.attention import Blocks, Plan, Segments, Shape, Way
from engine.ace_step.fast.dit import TOKENS, FastDit
from engine.ace_step.fast.fuse import Fuser, default_backend
from engine.ace_step.fast.graphs import Recorder
from engine.ace_step.fast.vae import FastDecoder, fast_vae
from engine.ace_step.song import Condition
from engine.ace_step.vae import Vae

_log = logging.getLogger(__name__)

_ROUNDING: Final = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 1e-2}
"""Relative, of one attention. A key too many or too few in a window of 257 is 0.06."""
_DEEP_ROUNDING: Final = {torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 0.1}
"""Relative, of a whole network. In bfloat16 two right ways through one are a few hundredths apart, more with
depth; weights in a wrong place or a stale graph are near 1."""
_TF32_ROUNDING: Final = 5e-3
"""Instead of float32's on CUDA, where convolutions round their inputs to TF32 unless told otherwise."""
_FRAMES: Final = (301, 120)
_WORDS: Final = (90, 41)
_VAE_FRAMES: Final = 20


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the engine: whether its fast form is used, and why, or why not."""

    name: str
    on: bool
    note: str
    difference: float | None = None
    """Relative to the plain path, measured when the model was loaded; None: nothing was compared."""


class Accelerated(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What renders one bundle."""

    dit: Denoiser[Any, Any]
    vae: Vae
    parts: tuple[Part, ...]
    recorder: Recorder
    """For the planner's steps."""

    def report(self) -> str:
        """One line a part, for logs and benchmarks."""
        return "\n".join(_lines(self.parts))


def accelerate(
    bundle: Bundle, *, cache: Path | None = None, everywhere: bool = False, compiler: str | None = "default"
) -> Accelerated:
    """The fastest parts for a loaded model that agree with the plain ones.

    On a CPU that is the plain path, bit for bit the model's own, unless `everywhere`. `cache` keeps
    compiled kernels for the next start. `compiler` is torch.compile's backend; None: nothing is compiled.
    """
    recorder = Recorder(bundle.device)
    if bundle.device.type != "cuda" and not everywhere:
        why = f"the plain path is used on {bundle.device.type}"
        off = tuple(Part(name=name, on=False, note=why) for name in ("transformer", "decoder"))
        return Accelerated(dit=Dit(bundle.dit), vae=Vae(bundle.vae), parts=off, recorder=recorder)
    backend = default_backend(bundle.device) if compiler == "default" else compiler
    way, parts = _attention(bundle)
    dit, recorder, dit_parts = _transformer(bundle, way, recorder, backend, cache)
    vae, vae_part = _decoder(bundle, Fuser(backend, cache=cache))
    result = Accelerated(dit=dit, vae=vae, parts=(*parts, *dit_parts, vae_part), recorder=recorder)
    for line in _lines(result.parts):
        _log.info("%s: %s", bundle.name, line)
    return result


def difference(fast: torch.Tensor, plain: torch.Tensor) -> float:
    """Norm of the difference relative to `plain`; infinite where either is not finite."""
    fast, plain = fast.double(), plain.double()
    share = float((fast - plain).norm() / plain.norm().clamp(min=1e-12))
    return share if share == share else float("inf")  # noqa: PLR0124 - NaN is the only number unlike itself


def _lines(parts: tuple[Part, ...]) -> Iterator[str]:
    for part in parts:
        measured = "" if part.difference is None else f", differs by {part.difference:.1e}"
        yield f"{part.name}: {'on' if part.on else 'off'}, {part.note}{measured}"


def _attention(bundle: Bundle) -> tuple[Way | None, list[Part]]:
    """The first way that agrees with a masked softmax in float32."""
    parts: list[Part] = []
    config = _config(bundle)
    window: int = config.sliding_window
    scale = float(config.head_dim) ** -0.5
    device, dtype = bundle.device, bundle.dtype

    def segments() -> Way:
        return Segments(device=device, window=window, scale=scale)

    def blocks() -> Way:
        return Blocks(device=device, dtype=dtype, window=window, scale=scale)

    made: list[tuple[str, str | None, Callable[[], Way]]] = [
        (Segments.name, Segments.offered(device, dtype), segments),
        (Blocks.name, None, blocks),
    ]
    for name, refused, make in made:
        part = Part(name=name, on=False, note=refused or "")
        way = None
        if refused is None:
            part, way = _tried(name, partial(_try_way, bundle, make), _ROUNDING[dtype])
        parts.append(part)
        if part.on:
            return way, parts
    return None, parts


def _try_way(bundle: Bundle, make: Callable[[], Way]) -> tuple[Way, float]:
    way = make()
    config = _config(bundle)
    window: int = config.sliding_window
    shape = Shape(2, -(-3 * window // TOKENS) * TOKENS, TOKENS)
    tokens, words = [shape.tokens - window // 3, shape.tokens // 2 + 1], [shape.words - 1, 17]
    plan = way.plan(shape)
    way.fill(plan, tokens, words)
    worst = 0.0
    for kind in Attention:
        read = words if kind is Attention.CROSS else tokens
        draw = _Draw(bundle, seed=len(kind))
        length = shape.words if kind is Attention.CROSS else shape.tokens
        query = draw(2, shape.tokens, config.num_attention_heads, config.head_dim)
        key = draw(2, length, config.num_key_value_heads, config.head_dim)
        value = draw(2, length, config.num_key_value_heads, config.head_dim)
        worst = max(worst, _one_way(kind, way, plan, (query, key, value), tokens, read, window))
    return way, worst


def _one_way(
    kind: Attention,
    way: Way,
    plan: Plan,
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    tokens: list[int],
    read: list[int],
    window: int,
) -> float:
    """How far `way` is from the definition, in the rows' own parts."""
    mixed = way.attend(kind, *inputs, plan)
    worst = 0.0
    for row, (asking, end) in enumerate(zip(tokens, read, strict=True)):
        query, key, value = (
            part[row, :length].float() for part, length in zip(inputs, (asking, end, end), strict=True)
        )
        share = query.shape[1] // key.shape[1]
        scores = torch.einsum("nhw,mhw->hnm", query, key.repeat_interleave(share, 1))
        scores = scores * query.shape[2] ** -0.5
        if kind is Attention.SLIDING:
            places = torch.arange(asking, device=scores.device)
            far = (places[:, None] - places).abs() > window
            scores = scores.masked_fill(far, float("-inf"))
        wanted = torch.einsum("hnm,mhw->nhw", scores.softmax(-1), value.repeat_interleave(share, 1))
        worst = max(worst, difference(mixed[row, :asking], wanted))
    return worst


def _transformer(
    bundle: Bundle, way: Way | None, recorder: Recorder, backend: str | None, cache: Path | None
) -> tuple[Denoiser[Any, Any], Recorder, list[Part]]:
    """With everything; else without the compiler; else without graphs as well; else the plain one."""
    plain = Dit(bundle.dit)
    if way is None:
        return plain, recorder, [Part(name="transformer", on=False, note="no attention agrees")]
    notes: list[Part] = []
    trials = [(backend, True), (None, True), (None, False)] if backend else [(None, True), (None, False)]
    for compiler, graphs in trials:
        fuser, recorder = Fuser(compiler, cache=cache), Recorder(bundle.device, enabled=graphs)
        part, dit = _tried(
            "transformer",
            partial(_try_dit, bundle, way, fuser, recorder, plain),
            _deep_rounding(bundle.device, bundle.dtype),
        )
        if dit is not None and part.on:
            dit.forget()
            fused = Part(name="fused kernels", on=fuser.on, note=fuser.note)
            graphed = Part(name="CUDA graphs", on=recorder.enabled, note=recorder.note)
            return dit, recorder, [*notes, part, fused, graphed]
        tried = f"compiler {compiler or 'off'}, graphs {'on' if graphs else 'off'}"
        notes.append(msgspec.structs.replace(part, name=f"transformer ({tried})"))
    return plain, recorder, [*notes, Part(name="transformer", on=False, note="the plain path is used")]


def _try_dit(bundle: Bundle, way: Way, fuser: Fuser, recorder: Recorder, plain: Dit) -> tuple[FastDit, float]:
    """Two uneven rows at two times: the second step is played from the graph of the first."""
    fast = FastDit(bundle.dit, way=way, fuser=fuser, recorder=recorder)
    config = _config(bundle)
    latent: int = config.audio_acoustic_hidden_dim
    draw = _Draw(bundle, seed=1)
    contexts = [draw(frames, config.in_channels - latent) for frames in _FRAMES]
    conditions = [
        Condition(draw(words, config.encoder_hidden_size or config.hidden_size)) for words in _WORDS
    ]
    batch = fast.batch(contexts, [fast.memory(condition) for condition in conditions])
    plain_batch = plain.batch(contexts, [plain.memory(condition) for condition in conditions])
    worst = 0.0
    for times in ((1.0, 0.7), (0.3, 0.9)):
        latents = draw(2, max(_FRAMES), latent).float()
        t = torch.tensor(times, device=bundle.device)
        got, wanted = fast.velocity(batch, latents, t), plain.velocity(plain_batch, latents, t)
        for row, frames in enumerate(_FRAMES):
            worst = max(worst, difference(got[row, :frames], wanted[row, :frames]))
    return fast, worst


def _decoder(bundle: Bundle, fuser: Fuser) -> tuple[Vae, Part]:
    module: Any = bundle.vae  # its parts carry no types
    dtype: torch.dtype = next(module.parameters()).dtype

    def attempt() -> tuple[FastDecoder, float]:
        decoder = FastDecoder(module.decoder, fuser)
        latents = _Draw(bundle, seed=2)(1, bundle.channels, _VAE_FRAMES).to(dtype)
        with torch.inference_mode():
            wanted: torch.Tensor = module.decoder(latents)
        return decoder, difference(decoder(latents), wanted)

    part, decoder = _tried("decoder", attempt, _deep_rounding(bundle.device, dtype))
    if decoder is None or not part.on:
        return Vae(bundle.vae), part
    return fast_vae(bundle.vae, decoder), msgspec.structs.replace(part, note=f"fused kernels {fuser.note}")


def _deep_rounding(device: torch.device, dtype: torch.dtype) -> float:
    return _TF32_ROUNDING if device.type == "cuda" and dtype is torch.float32 else _DEEP_ROUNDING[dtype]


def _config(bundle: Bundle) -> Any:
    model: Any = bundle.dit
    return model.config


def _tried(name: str, attempt: Callable[[], tuple[Any, float]], bound: float) -> tuple[Part, Any]:
    """What `attempt` made and how it compares; anything that goes wrong only switches the part off."""
    try:
        with torch.inference_mode():
            made, measured = attempt()
    except Exception as error:  # noqa: BLE001 - drivers fail in any way, and the plain path is there
        first = (str(error).splitlines() or [""])[0][:200]
        return Part(name=name, on=False, note=f"{type(error).__name__}: {first}"), None
    if measured > bound:
        return Part(name=name, on=False, note=f"differs by more than {bound:g}", difference=measured), None
    return Part(name=name, on=True, note="agrees with the plain path", difference=measured), made


class _Draw:
    """Random tensors of the model's type, the same ones each time, without touching torch's own generator."""

    def __init__(self, bundle: Bundle, *, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._bundle = bundle

    def __call__(self, *size: int) -> torch.Tensor:
        drawn = torch.randn(size, generator=self._generator)
        return drawn.to(self._bundle.device, self._bundle.dtype)
