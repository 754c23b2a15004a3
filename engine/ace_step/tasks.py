"""From a request to what the sampler needs: one function for all six tasks.

T: latent frames, 25 a second. D: latent width.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import torch

from engine.ace_step.bundle import HOP, Bundle
from engine.ace_step.conditioning import Conditioner
from engine.ace_step.prompt import negative_prompt_of, prompt_of
from engine.ace_step.schedule import timesteps
from engine.ace_step.song import Condition, Guidance, Injection, Song, Switch
from engine.ace_step.vae import CHUNK_FRAMES, Vae
from engine.ace_step.window import window_of
from engine.admission import check_knobs, is_guided
from engine.errors import InvalidRequest
from engine.schema import EngineRequest, GuidanceType, InferMethod, Task
from engine.variants import VARIANTS, Variant

LEAST_FRAMES: Final = 128
"""The models never saw less (5.12 s): shorter songs are rendered this long and cut."""

INJECTED_SHARE: Final = 0.5
"""Share of a repaint's steps after which its source is put back."""

SOURCE_SEED: Final = 0x50CE
"""One for all songs: variations of one source start from the same latents."""

_SDE_SEED_OFFSET: Final = 0x9E3779B9
"""Fresh noise must not repeat the noise that the song began with."""


def latent_frames(frames: int) -> int:
    """T of a song of `frames` samples."""
    return max(LEAST_FRAMES, -(-frames // HOP))


@torch.no_grad()
def prepare(
    bundle: Bundle,
    conditioner: Conditioner,
    vae: Vae,
    request: EngineRequest,
    *,
    codes: Sequence[int] | None = None,
    chunk_frames: int = CHUNK_FRAMES,
) -> Song:
    """Everything that the sampler needs of `request`, on the bundle's device.

    `codes`: five audio codes a second, by the planner or another; a text2music then follows them as a cover
    does its source. What the request leaves open, the variant decides. `chunk_frames`: how much of a sound is
    encoded at once. Raises InvalidRequest, naming the field, for what these weights cannot do.
    """
    variant = VARIANTS[bundle.kind]
    check_knobs(request, variant, planner=True)
    frames = latent_frames(request.frames)
    noise = _noise(request.seed, frames, bundle)
    source = _source_latents(vae, request, chunk_frames)
    scene = _scene(bundle, request, frames, source, codes)
    follows = Task.COVER if codes is not None else request.task
    condition = _condition(conditioner, request, follows, chunk_frames)
    times = request.timesteps or timesteps(
        request.num_inference_steps or variant.steps[2], request.shift or variant.shift
    )
    start = None
    if request.cover_noise_strength and scene.source is not None:
        start, times = _from_source(scene.source, noise, times, request.cover_noise_strength)
    return Song(
        id=request.id,
        noise=noise,
        start=start,
        context=scene.context,
        condition=condition,
        timesteps=times,
        guidance=_guidance(conditioner, request, variant, condition, follows),
        sde_seed=_sde_seed(request),
        switch=_switch(bundle, conditioner, request, len(times), frames),
        injection=_injection(scene, len(times)),
    )


class _Scene(msgspec.Struct, frozen=True, eq=False):
    """What the transformer sees beside the noise, and where it comes from."""

    context: torch.Tensor
    source: torch.Tensor | None = None
    """[T, D], float32: the source's own latents."""
    keep: torch.Tensor | None = None
    """[T], bool: frames that a repaint leaves alone."""


def _noise(seed: int, frames: int, bundle: Bundle) -> torch.Tensor:
    """[T, D], float32. Drawn on the CPU, so that a seed gives the same song on every machine."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, frames, bundle.channels, generator=generator)[0].to(bundle.device)


def _source_latents(vae: Vae, request: EngineRequest, chunk_frames: int) -> torch.Tensor | None:
    """[T, D], float32. Where a repaint grows, the source is padded first; other tasks begin with it."""
    source = request.source
    if source is None:
        return None
    begin, samples = 0, min(source.frames, request.frames)
    if request.task is Task.REPAINT:
        begin, samples = window_of(request).source_start, request.frames
    return vae.latents(source, begin=begin, samples=samples, seed=SOURCE_SEED, chunk_frames=chunk_frames)


def _scene(
    bundle: Bundle,
    request: EngineRequest,
    frames: int,
    source: torch.Tensor | None,
    codes: Sequence[int] | None,
) -> _Scene:
    everything = torch.ones(frames, dtype=torch.bool, device=bundle.device)
    if codes is not None:
        if request.task is not Task.TEXT2MUSIC:
            raise InvalidRequest(f"codes: {request.task} follows its source, not audio codes")
        return _Scene(_context(bundle, _hints_of_codes(bundle, codes, frames), everything))
    if source is None:
        return _Scene(_context(bundle, silence(bundle, frames), everything))
    source = _fitted(bundle, source, frames)
    if request.task is Task.REPAINT:
        return _repainted(bundle, request, source)
    seen = _hints_of_latents(bundle, source) if request.task is Task.COVER else source
    return _Scene(_context(bundle, seen, everything), source)


def _repainted(bundle: Bundle, request: EngineRequest, source: torch.Tensor) -> _Scene:
    """Silence inside the window, the source outside."""
    start, end = window_of(request).latents()
    inside = torch.zeros(len(source), dtype=torch.bool, device=bundle.device)
    inside[start:end] = True
    seen = torch.where(inside[:, None], silence(bundle, len(source)), source.to(bundle.dtype))
    return _Scene(_context(bundle, seen, inside), source, ~inside)


def _fitted(bundle: Bundle, latents: torch.Tensor, frames: int) -> torch.Tensor:
    """Cut to `frames`, or go on in silence."""
    missing = frames - len(latents)
    if missing <= 0:
        return latents[:frames]
    return torch.cat([latents, silence(bundle, missing).to(latents)])


def silence(bundle: Bundle, frames: int) -> torch.Tensor:
    """[T, D] of what the models know as silence; the checkpoint's 600 s are repeated for longer songs."""
    known: torch.Tensor = bundle.condition_encoder.get_buffer("silence_latent")[0]
    return known.repeat(-(-frames // len(known)), 1)[:frames].to(bundle.device, bundle.dtype)


def _context(bundle: Bundle, seen: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """[T, 2 D]: what is there, and 1 in every channel of the frames that are to be generated.

    Always the explicit mask; leaving the choice to the model would repaint everything.
    """
    mask = inside[:, None].expand(len(inside), bundle.channels)
    return torch.cat([seen.to(bundle.dtype), mask.to(bundle.dtype)], dim=-1)


def _hints_of_codes(bundle: Bundle, codes: Sequence[int], frames: int) -> torch.Tensor:
    """[T, D] that the audio codes stand for: five frames each, cut or continued by silence."""
    tokenizer, detokenizer = _audio_tokenizers(bundle, "audio codes")
    if not codes:
        raise InvalidRequest("codes: at least one audio code is needed")
    last = tokenizer.quantizer.codebook_size - 1
    indices = torch.tensor([min(max(code, 0), last) for code in codes], device=bundle.device)
    # The first quantizer carries the codes; others, if a checkpoint has them, stay at 0.
    table = torch.zeros(1, len(codes), tokenizer.quantizer.num_quantizers, dtype=torch.long)
    table = table.to(bundle.device)
    table[0, :, 0] = indices
    quantized = tokenizer.quantizer.get_output_from_indices(table).to(bundle.dtype)
    return _fitted(bundle, detokenizer(quantized)[0].to(bundle.dtype), frames)


def _hints_of_latents(bundle: Bundle, latents: torch.Tensor) -> torch.Tensor:
    """[T, D]: the source as far as five codes a second can tell it: melody, rhythm, form."""
    tokenizer, detokenizer = _audio_tokenizers(bundle, "cover")
    quiet = silence(bundle, LEAST_FRAMES)[None]
    quantized, _ = tokenizer.tokenize(latents[None].to(bundle.dtype), quiet)
    hints: torch.Tensor = detokenizer(quantized.to(bundle.dtype))[0, : len(latents)]
    return hints


def _audio_tokenizers(bundle: Bundle, purpose: str) -> tuple[Any, Any]:
    if bundle.audio_tokenizer is None or bundle.audio_detokenizer is None:
        raise InvalidRequest(
            f"task: {purpose} cannot be rendered by {bundle.name}: its checkpoint came without audio "
            "tokenizers; the operator can take them from a donor that has them, such as the sft release"
        )
    return bundle.audio_tokenizer, bundle.audio_detokenizer


def _condition(
    conditioner: Conditioner, request: EngineRequest, task: Task, chunk_frames: int = CHUNK_FRAMES
) -> Condition:
    prompt = prompt_of(request, task=task, count_tokens=conditioner.count_tokens)
    return conditioner.condition(prompt, request.reference, chunk_frames=chunk_frames)


def _from_source(
    source: torch.Tensor, noise: torch.Tensor, times: tuple[float, ...], strength: float
) -> tuple[torch.Tensor, tuple[float, ...]]:
    """First latents and remaining times of a cover that begins with a noisy source.

    As in the models' own code: the step whose time is nearest to 1 - strength comes first, and the song
    starts from t * noise + (1 - t) * source.
    """
    first = min(range(len(times)), key=lambda step: abs(times[step] - (1.0 - strength)))
    t = times[first]
    return t * noise + (1.0 - t) * source, times[first:]


def _guidance(
    conditioner: Conditioner, request: EngineRequest, variant: Variant, condition: Condition, task: Task
) -> Guidance | None:
    """None where guidance is distilled into the weights, or asks for nothing."""
    if not is_guided(request, variant):
        return None
    scale = variant.guidance_scale[2] if request.guidance_scale is None else request.guidance_scale
    if request.negative_prompt:
        negative = negative_prompt_of(request, task=task, count_tokens=conditioner.count_tokens)
        null = conditioner.condition(negative)
    else:
        null = conditioner.null(condition)
    kind = request.guidance_type or GuidanceType.APG
    return Guidance(kind=kind, scale=scale, interval=request.cfg_interval, null=null)


def _switch(
    bundle: Bundle, conditioner: Conditioner, request: EngineRequest, steps: int, frames: int
) -> Switch | None:
    """Where a cover lets go of its source: it goes on as a text2music, in the words and in what it sees."""
    strength = 1.0 if request.cover_strength is None else request.cover_strength
    first = int(steps * strength)
    if request.task is not Task.COVER or first >= steps:
        return None
    everything = torch.ones(frames, dtype=torch.bool, device=bundle.device)
    return Switch(
        step=first,
        condition=_condition(conditioner, request, Task.TEXT2MUSIC),
        context=_context(bundle, silence(bundle, frames), everything),
    )


def _injection(scene: _Scene, steps: int) -> Injection | None:
    if scene.source is None or scene.keep is None or not scene.keep.any():
        return None
    return Injection(source=scene.source, keep=scene.keep, steps=round(INJECTED_SHARE * steps))


def _sde_seed(request: EngineRequest) -> int | None:
    if request.infer_method is not InferMethod.SDE:
        return None
    return (request.seed + _SDE_SEED_OFFSET) % 2**32
