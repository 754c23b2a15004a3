"""How many bytes a batch will need, before it is tried; all arithmetic, nothing is allocated.

    peak    = weights + (state + max(masks + step, making masks, chunk)) * 1.1 + fixed
    state   = words + latents, per row; a guided song has two rows
    words   = 2 copies * 2 (keys, values) * layers * E * G
    latents = 12 * 4 bytes * T * D
    step    = rows * N * (4 H + max(feed-forward, attention)) + scores
    chunk   = 5 * C * (chunk + 2 * 12 frames)

T: latent frames of the longest song (25 a second), N = T / 2 tokens, E: tokens of words, D: latent width.
H, F, Q, G: widths of the residual, the feed-forward, all query heads and all key heads. C: the decoder's
widest layer per latent frame.

Where they come from: `step` counts the tensors that live at once in engine.ace_step.dit (feed-forward: gate,
up and product, 3 F + H; attention: query, key, value and the rotation in float32). 5 are the living tensors
of a residual unit of the Oobleck decoder, and half of one for its block's input. Attention scores count where
the kernel writes them. A tenth is for fragments of the allocator, `fixed` for the device's own libraries.
Compared with the CPU's allocator on tiny weights in tests; not measured on a GPU.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from engine.ace_step.bundle import HOP, Bundle
from engine.ace_step.tasks import LEAST_FRAMES
from engine.ace_step.vae import CHUNK_FRAMES, DECODER_OVERLAP
from engine.schema import MAX_SECONDS, SAMPLE_RATE

MIN_CHUNK_FRAMES: Final = 32
"""The smallest chunk that is decoded; with its overlap, as much again is computed for nothing."""
MAX_WORDS: Final = 2308
"""256 tokens of text and 2048 of lyrics at most, and those of the timbre."""
LATENT_RATE: Final = SAMPLE_RATE // HOP

_SLACK: Final = 1.1
_CUDA_FIXED_BYTES: Final = 750_000_000
"""CUDA context, cuBLAS and cuDNN workspaces."""
_DECODER_TENSORS: Final = 5
_LATENT_COPIES: Final = 12
_MEMORY_COPIES: Final = 2
"""Of each song's keys and values: its own, and the one in the batch."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What of a loaded model decides about memory."""

    weights_bytes: int
    """Everything that stays on the device for it."""
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    query: int
    """Width of all query heads together."""
    keys: int
    """Width of all key heads together."""
    latent: int
    decoder: int
    """Widest layer of the VAE's decoder: channels times samples, per latent frame."""
    dtype_bytes: int
    vae_dtype_bytes: int
    scores: bool = False
    """Whether attention writes its scores into memory."""
    fixed_bytes: int = 0


def shape_of(bundle: Bundle, *, scores: bool) -> Shape:
    """Read it off the modules."""
    config: Any = getattr(bundle.dit, "config")  # noqa: B009 - diffusers' modules carry no types
    vae: Any = bundle.vae
    modules: tuple[Any, ...] = (
        bundle.dit,
        bundle.condition_encoder,
        bundle.text_encoder,
        bundle.vae,
        bundle.audio_tokenizer,
        bundle.audio_detokenizer,
    )
    return Shape(
        weights_bytes=sum(_module_bytes(module) for module in modules if module is not None),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        feed_forward=config.intermediate_size,
        heads=config.num_attention_heads,
        query=config.num_attention_heads * config.head_dim,
        keys=config.num_key_value_heads * config.head_dim,
        latent=bundle.channels,
        decoder=decoder_width(vae.config),
        dtype_bytes=bundle.dtype.itemsize,
        vae_dtype_bytes=next(vae.parameters()).element_size(),
        scores=scores,
        fixed_bytes=_CUDA_FIXED_BYTES if bundle.device.type == "cuda" else 0,
    )


def peak_bytes(
    shape: Shape, frames: Sequence[int], *, rows: int | None = None, chunk: int = CHUNK_FRAMES
) -> int:
    """What a batch of songs of these lengths (latent frames) needs at its worst moment, weights included.

    `rows`: songs and nulls of guided ones; None: no song is guided.
    """
    rows = len(frames) if rows is None else rows
    longest = max(frames)
    state = rows * (_words_bytes(shape) + _LATENT_COPIES * 4 * longest * shape.latent)
    worst = max(
        _step_bytes(shape, longest, rows, even=len(set(frames)) == 1),
        _chunk_bytes(shape, longest, chunk),
    )
    return shape.weights_bytes + round((state + worst) * _SLACK) + shape.fixed_bytes


def longest_seconds(shape: Shape, device_bytes: int, *, rows: int = 1, most: float = MAX_SECONDS) -> float:
    """The longest single song, in whole seconds, that fits into `device_bytes` with the smallest chunks.

    0: not even one second does.
    """
    low, high = 0, int(most)
    while low < high:
        middle = (low + high + 1) // 2
        frames = max(LEAST_FRAMES, middle * LATENT_RATE)
        if peak_bytes(shape, [frames], rows=rows, chunk=MIN_CHUNK_FRAMES) <= device_bytes:
            low = middle
        else:
            high = middle - 1
    return float(low)


def fitting_chunk(shape: Shape, frames: Sequence[int], *, rows: int, most: int, device_bytes: int) -> int:
    """The largest chunk, `most` halved as often as needed, with which this batch fits; or the smallest."""
    chunk = most
    while chunk > MIN_CHUNK_FRAMES and peak_bytes(shape, frames, rows=rows, chunk=chunk) > device_bytes:
        chunk //= 2
    return max(chunk, MIN_CHUNK_FRAMES)


def free_bytes(device: torch.device) -> int:
    """What can still be allocated on `device`, counting what torch holds in reserve."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([_available_ram_bytes(), *_cgroup_room_bytes()])


def release(device: torch.device) -> None:
    """Give back what torch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def ran_out(error: BaseException) -> bool:
    """Whether `error` means that memory was not enough; the CPU's allocator has no class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    told = str(error)
    return isinstance(error, RuntimeError) and any(words in told for words in _OUT_OF_MEMORY_WORDS)


_OUT_OF_MEMORY_WORDS: Final = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
)


def table() -> str:
    """Markdown: the longest single song for each size of device and kind of model, in bfloat16."""
    kinds = [(name, rows) for name in RELEASED for rows in (1, 2)]
    titles = [f"{name} {'turbo' if rows == 1 else 'base, sft'}" for name, rows in kinds]
    lines = [f"| device memory | {' | '.join(titles)} |", "|---" * (len(kinds) + 1) + "|"]
    for size in _DEVICE_GIGABYTES:
        cells = [_cell(longest_seconds(RELEASED[name], size * 10**9, rows=rows)) for name, rows in kinds]
        lines.append(f"| {size} GB | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= LEAST_FRAMES / LATENT_RATE else "none"


_DEVICE_GIGABYTES: Final = (6, 8, 12, 16, 24, 48, 80, 141)
_SHARED_PARAMETERS: Final = 595_776_512 + 168_695_426
"""Text encoder and autoencoder."""
_SMALL: Final = Shape(
    weights_bytes=2 * (2_393_872_518 + _SHARED_PARAMETERS),
    layers=24,
    hidden=2048,
    feed_forward=6144,
    heads=16,
    query=2048,
    keys=1024,
    latent=64,
    decoder=128 * HOP,
    dtype_bytes=2,
    vae_dtype_bytes=2,
    fixed_bytes=_CUDA_FIXED_BYTES,
)
RELEASED: Final = {
    "2B": _SMALL,
    "XL": msgspec.structs.replace(
        _SMALL,
        weights_bytes=2 * (4_987_310_726 + _SHARED_PARAMETERS),
        layers=32,
        hidden=2560,
        feed_forward=9728,
        heads=32,
        query=4096,
    ),
}
"""Both sizes of the family as they are loaded on CUDA: bfloat16, without attention scores."""


def _words_bytes(shape: Shape) -> int:
    return _MEMORY_COPIES * 2 * shape.layers * MAX_WORDS * shape.keys * shape.dtype_bytes


def _step_bytes(shape: Shape, frames: int, rows: int, *, even: bool) -> int:
    tokens = -(-frames // 2)
    # Copies of what is rotated, in float32; where the model is float32 itself, most are none.
    rotation = 7 if shape.dtype_bytes < 4 else 4
    attention = (2 + rotation) * shape.query + 2 * shape.keys
    living = 4 * shape.hidden + max(3 * shape.feed_forward + shape.hidden, attention)
    step = rows * tokens * living * shape.dtype_bytes
    if shape.scores:
        # Scores, the same with the mask, and their softmax; keys and values repeated for every query head.
        step += rows * (3 * shape.heads * tokens**2 + 2 * tokens * shape.query) * shape.dtype_bytes
    masks = (1 if even else rows) * tokens**2
    # While the band is made: distances of places in int16, twice; then once, with three truth values a mask.
    making = max(4 * tokens**2, 2 * tokens**2 + 3 * masks)
    return max(masks * shape.dtype_bytes + step, masks * (shape.dtype_bytes + 1), making)


def _chunk_bytes(shape: Shape, frames: int, chunk: int) -> int:
    decoded = min(frames, chunk + 2 * DECODER_OVERLAP)
    return _DECODER_TENSORS * shape.decoder * decoded * shape.vae_dtype_bytes


def decoder_width(config: Any) -> int:
    """Channels times samples per latent frame at the widest place; blocks go from few samples to many."""
    ratios = list(config.downsampling_ratios)[::-1]
    multiples = [1, *config.channel_multiples]
    widest, samples = 0, 1
    for index, ratio in enumerate(ratios):
        samples *= ratio
        widest = max(widest, samples * multiples[len(ratios) - index - 1])
    return widest * int(config.decoder_channels)


def _module_bytes(module: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _available_ram_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _UNKNOWN_BYTES
    told = dict(line.split(":", 1) for line in lines)
    return int(told["MemAvailable"].split()[0]) * 1024


def _cgroup_room_bytes() -> list[int]:
    """What the container may still take, if it is in one (cgroup v2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        most, used = (folder / "memory.max").read_text().strip(), (folder / "memory.current").read_text()
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return []
    # Pages of files that nobody maps are given up before anything is refused.
    return [] if most == "max" else [int(most) - int(used) + int(stat.get("inactive_file", 0))]


_UNKNOWN_BYTES: Final = 8_000_000_000
"""Where the system does not tell: the least that a machine for such models has."""
