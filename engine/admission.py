"""What the engine asks the table of variants about a request, before it queues it. Free of torch."""

from engine.errors import InvalidRequest
from engine.schema import EngineRequest, InferMethod
from engine.variants import Knobs, Variant, objections


def check_knobs(request: EngineRequest, variant: Variant, *, planner: bool) -> None:
    """Raise InvalidRequest, with every reason, unless `variant` can do what is asked.

    What is merely without effect is let through.
    """
    reasons = [
        f"{objection.field}: {objection.message}"
        for objection in objections(variant, knobs_of(request), planner=planner)
        if not objection.ineffective
    ]
    if reasons:
        raise InvalidRequest("; ".join(reasons))


def is_guided(request: EngineRequest, variant: Variant) -> bool:
    """Whether each step has to be computed with and without the prompt."""
    scale = variant.guidance_scale[2] if request.guidance_scale is None else request.guidance_scale
    return variant.guided and scale > 1


def knobs_of(request: EngineRequest) -> Knobs:
    """What the request says, as the table of variants wants to hear it."""
    start, end = request.cfg_interval
    return Knobs(
        task=request.task,
        has_source=request.source is not None,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        guidance_type=request.guidance_type,
        cfg_interval_start=None if start == 0 else start,
        cfg_interval_end=None if end == 1 else end,
        shift=request.shift,
        timesteps=request.timesteps or None,
        infer_method=None if request.infer_method is InferMethod.ODE else request.infer_method,
        negative_prompt=request.negative_prompt,
        repainting_start=request.repainting_start,
        repainting_end=request.repainting_end,
        cover_strength=request.cover_strength,
        cover_noise_strength=request.cover_noise_strength,
        track_name=request.track_name,
        track_classes=request.track_classes or None,
        thinking=request.thinking,
    )
