"""A request in Runware's words. What it cannot express was refused before or is let go: `routing.runware`."""

import base64
from typing import Any, Final

from engine import GuidanceType, Task, output_frames
from gateway.backends.base import Failed
from gateway.backends.remote.provider import Brought, Call, Refused
from gateway.backends.runware.verdicts import Verdict, failure_of
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.jobs.job import JobErrorCode
from gateway.routing import runware as limits

OUTPUT_FORMAT: Final = "FLAC"
"""Lossless: every delivery format is made from it here."""
TTL_SECONDS: Final = 24 * 3600
"""For which a result stays there: as long as a job may wait for a worker that fetches it."""
LEAST_LYRICS_CHARACTERS: Final = 10
PLAIN_CFG_SCALE: Final = 10.0
"""What holds there where nothing is said; a negative prompt wants it said."""
INSTRUMENTAL: Final = "unknown"
"""The language in which nothing is sung."""

Members = dict[str, Any]


def inference_task(call: Call, ref: str, *, media: str | None, webhook_url: str | None) -> Members:
    """The `audioInference` of a call; `media`: what its source is called there. Raises Refused."""
    request = call.request
    task: Members = {
        "taskType": "audioInference",
        "taskUUID": ref,
        "model": call.model,
        "deliveryMethod": "async",
        "outputType": "URL",
        "outputFormat": OUTPUT_FORMAT,
        "includeCost": True,
        "ttl": TTL_SECONDS,
        "numberResults": call.count,
        "positivePrompt": request.prompt,
        "seed": request.variation_seed(call.first),
    }
    settings = _words(request)
    if request.num_inference_steps is not None:
        task["steps"] = min(max(request.num_inference_steps, 1), limits.most_steps(call.model))
    if not limits.is_turbo(call.model):
        _guide(task, settings, request)
    if request.task is Task.TEXT2MUSIC:
        task["duration"] = limits.ordered_frames(request) / SAMPLE_RATE
    else:
        _edit(task, settings, request, _checked(request, call.source))
        task["inputs"] = {"audio": media}
    if settings:
        task["settings"] = settings
    if webhook_url is not None:
        task["webhookURL"] = webhook_url
    return task


def upload_task(source: Brought, ref: str) -> Members:
    """Keeps a source there."""
    return {
        "taskType": "mediaStorage",
        "taskUUID": ref,
        "operation": "upload",
        "media": base64.b64encode(source.content).decode("ascii"),
    }


def look_task(ref: str) -> Members:
    """Asks how a task is."""
    return {"taskType": "getResponse", "taskUUID": ref}


def account_task(ref: str) -> Members:
    """Asks how we are."""
    return {"taskType": "accountManagement", "taskUUID": ref, "operation": "getDetails"}


def _words(request: GenerationRequest) -> Members:
    """What is sung, and the facts of music that every model takes."""
    settings: Members = {
        "bpm": request.bpm,
        "keyScale": request.key_scale,
        "timeSignature": request.time_signature,
        "vocalLanguage": request.vocal_language,
    }
    if request.instrumental or not request.lyrics.strip():
        settings["vocalLanguage"] = INSTRUMENTAL
    else:
        settings["lyrics"] = request.lyrics.ljust(LEAST_LYRICS_CHARACTERS, "\n")
    return {name: value for name, value in settings.items() if value is not None}


def _guide(task: Members, settings: Members, request: GenerationRequest) -> None:
    """Only what the client said: another model's default would be another sound."""
    scale, negative = request.guidance_scale, request.negative_prompt
    if scale is not None:
        task["CFGScale"] = limits.cfg_scale(scale)
    if negative is not None and task.get("CFGScale", PLAIN_CFG_SCALE) > 1:
        task["negativePrompt"] = negative
        task.setdefault("CFGScale", PLAIN_CFG_SCALE)
    if request.guidance_type in {GuidanceType.APG, GuidanceType.CFG}:
        settings["guidanceType"] = str(request.guidance_type)
    if request.cfg_interval_start is not None:
        settings["cfgIntervalStart"] = round(request.cfg_interval_start, 2)
    if request.cfg_interval_end is not None:
        settings["cfgIntervalEnd"] = round(request.cfg_interval_end, 2)


def _edit(task: Members, settings: Members, request: GenerationRequest, source: Brought) -> None:
    """Without a task field there: which members are sent tells a cover from a repaint."""
    if request.task is Task.COVER:
        strength = request.cover_strength
        settings["coverConditioningScale"] = 1.0 if strength is None else round(strength, 2)
        if request.cover_noise_strength is not None:
            task["strength"] = round(request.cover_noise_strength, 2)
        return
    start, end = round(request.repainting_start or 0.0, 3), request.repainting_end
    # Beyond the end of the source the song would grow, be it by less than a millisecond.
    end = source.frames * 1000 // SAMPLE_RATE / 1000 if end is None else round(end, 3)
    settings["repaintingStart"] = start
    settings["repaintingEnd"] = max(end, round(start + 0.001, 3))  # a window of nothing is refused


def _checked(request: GenerationRequest, source: Brought | None) -> Brought:
    """What could not be known before the source was there; raises Refused."""
    if request.task not in limits.TASKS or source is None:
        raise Refused(failure_of(Verdict.NOT_EXPRESSED))
    frames = output_frames(
        request.task,
        source_frames=source.frames,
        start=request.repainting_start,
        end=request.repainting_end,
    )
    if frames > limits.MOST_SECONDS * SAMPLE_RATE:
        message = f"the source makes a longer song than the provider's {limits.MOST_SECONDS} s"
        raise Refused(Failed(code=JobErrorCode.INPUT_UNREADABLE, message=message, retryable=True))
    return source
