"""What `audioInference` refuses before it is a task: unknown members, wrong types, ranges, combinations."""

import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tests.providers.runware.account import Json
from tests.providers.runware.refusals import Refusal
from tests.providers.runware.tables import FORMATS, LANGUAGES, MODELS, SAMPLE_RATES, Model, bitrates

Check = Callable[[str, Any], None]
_KEY_SCALE = re.compile(r"[A-G]['#b♯♭]? (major|minor)")
MIN_TTL_S = 60


def invalid(parameter: str, why: str, **bounds: Any) -> Refusal:
    return Refusal(f"invalid{_code_part(parameter)}", f"{parameter} {why}", parameter, **bounds)


def missing(parameter: str) -> Refusal:
    return Refusal(f"missing{_code_part(parameter)}", f"{parameter} is required", parameter)


def unsupported(parameter: str, why: str = "is not supported") -> Refusal:
    return Refusal("unsupportedParameter", f"{parameter} {why}", parameter)


def _code_part(parameter: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in parameter.split("."))


def _text(least: int = 0, most: int = 10**9) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, str):
            raise invalid(name, "must be a string")
        if not least <= len(value) <= most:
            raise invalid(name, f"must have {least} to {most} characters", min=least, max=most)

    return check


def _integer(least: int, most: int = 2**53) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise invalid(name, "must be an integer")
        if not least <= value <= most:
            raise invalid(name, f"must lie in {least}..{most}", min=least, max=most)

    return check


def _number(least: float, most: float, step: float) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise invalid(name, "must be a number")
        if not least <= value <= most:
            raise invalid(name, f"must lie in {least}..{most}", min=least, max=most)
        if abs(value / step - round(value / step)) > 1e-6:
            raise invalid(name, f"must be a multiple of {step}")

    return check


def _one_of(*allowed: Any) -> Check:
    def check(name: str, value: Any) -> None:
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise invalid(name, "is none of the allowed values", allowedValues=list(allowed))

    return check


def _boolean(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise invalid(name, "must be true or false")


def _object(name: str, value: Any) -> None:
    if not isinstance(value, dict) or not value:
        raise invalid(name, "must be an object with members")


def _url(name: str, value: Any) -> None:
    parts = urlsplit(value) if isinstance(value, str) else None
    if not parts or parts.scheme not in ("http", "https") or not parts.hostname:
        raise invalid(name, "must be an http or https URL")


def _key_scale(name: str, value: Any) -> None:
    if not isinstance(value, str) or not _KEY_SCALE.fullmatch(value):
        raise invalid(name, "must be a key such as 'C major' or 'F# minor'")


def check_uuid(name: str, value: Any) -> None:
    try:
        uuid.UUID(value if isinstance(value, str) and len(value) == 36 else "")
    except ValueError:
        raise invalid(name, "must be a UUID") from None


_PLATFORM: dict[str, Check] = {
    "taskType": _text(),
    "taskUUID": check_uuid,
    "model": _text(),
    "outputType": _one_of("URL", "base64Data", "dataURI"),
    "outputFormat": _one_of(*FORMATS),
    "audioSettings": _object,
    "deliveryMethod": _one_of("sync", "async"),
    "webhookURL": _url,
    "uploadEndpoint": _url,
    "ttl": _integer(MIN_TTL_S),
    "includeCost": _boolean,
    "numberResults": _integer(1, 4),
}
_CORE: dict[str, Check] = {
    "positivePrompt": _text(2, 3000),
    "negativePrompt": _text(2, 3000),
    "duration": _number(30, 300, 0.1),
    "seed": _integer(0, 2**31 - 1),
    "CFGScale": _number(1, 30, 0.01),
    "strength": _number(0, 1, 0.01),
    "settings": _object,
    "inputs": _object,
}
_SETTINGS: dict[str, Check] = {
    "lyrics": _text(10, 3000),
    "bpm": _integer(30, 300),
    "keyScale": _key_scale,
    "timeSignature": _one_of(2, 3, 4, 6),
    "vocalLanguage": _one_of(*sorted(LANGUAGES)),
    "guidanceType": _one_of("apg", "cfg"),
    "cfgIntervalStart": _number(0, 1, 0.01),
    "cfgIntervalEnd": _number(0, 1, 0.01),
    "coverConditioningScale": _number(0, 1, 0.01),
    "repaintingStart": _number(-300, 300, 0.001),
    "repaintingEnd": _number(0, 300, 0.001),
}
_AUDIO_SETTINGS: dict[str, Check] = {
    "bitrate": _integer(8),
    "channels": _one_of(1, 2),
    "sampleRate": _integer(1),
}
_GUIDED = ("guidanceType", "cfgIntervalStart", "cfgIntervalEnd")
_OF_SOURCE = ("coverConditioningScale", "repaintingStart", "repaintingEnd")


def check(task: Json) -> Model:
    """Raises the first Refusal; the model that is asked for."""
    for required in ("taskUUID", "model", "positivePrompt"):
        if required not in task:
            raise missing(required)
    check_uuid("taskUUID", task["taskUUID"])
    model = MODELS.get(task["model"]) if isinstance(task["model"], str) else None
    if model is None:
        raise invalid("model", "is unknown")
    steps = {"steps": _integer(1, 20 if model.turbo else 300)}
    advanced = {"advancedFeatures": _object} if model.large else {}
    _check_guidance(task, model)
    _check_members("", task, _PLATFORM | _CORE | steps | advanced)
    _check_members("settings.", task.get("settings", {}), _SETTINGS)
    _check_members("inputs.", task.get("inputs", {}), {"audio": _text(1)})
    _check_members("audioSettings.", task.get("audioSettings", {}), _AUDIO_SETTINGS)
    _check_source(task)
    _check_output(task)
    return model


def _check_members(prefix: str, members: Json, checks: dict[str, Check]) -> None:
    for name, value in members.items():
        if name not in checks:
            raise unsupported(prefix + name)
        checks[name](prefix + name, value)


def _check_guidance(task: Json, model: Model) -> None:
    settings = task.get("settings")
    guided = [name for name in _GUIDED if isinstance(settings, dict) and name in settings]
    if model.turbo:
        if "CFGScale" in task:
            raise Refusal("unsupportedCFGScaleForModel", "CFGScale has no effect on this model", "CFGScale")
        if "negativePrompt" in task:
            raise unsupported("negativePrompt", "is not supported by this model")
        if guided:
            raise unsupported(f"settings.{guided[0]}", "is not supported by this model")
    elif "negativePrompt" in task and task.get("CFGScale") == 1:
        raise unsupported("negativePrompt", "needs a CFGScale above 1")


def _check_source(task: Json) -> None:
    settings = task.get("settings", {})
    if "audio" in task.get("inputs", {}):
        if "duration" in task:
            raise unsupported("duration", "cannot stand together with inputs.audio")
        if settings.get("repaintingEnd", 300) <= settings.get("repaintingStart", -300):
            raise invalid("settings.repaintingEnd", "must lie behind settings.repaintingStart")
        return
    if "strength" in task:
        raise unsupported("strength", "needs inputs.audio")
    for name in _OF_SOURCE:
        if name in settings:
            raise unsupported(f"settings.{name}", "needs inputs.audio")


def _check_output(task: Json) -> None:
    output_format, asked = task.get("outputFormat", "MP3"), task.get("audioSettings")
    if "ttl" in task and task.get("outputType", "URL") != "URL":
        raise unsupported("ttl", "needs outputType URL")
    if asked is None:
        return
    if output_format not in ("MP3", "OGG"):
        raise unsupported("audioSettings", f"cannot stand together with {output_format}")
    rate = asked.get("sampleRate", SAMPLE_RATES[output_format])
    bounds = bitrates(output_format, rate, asked.get("channels", 2))
    if bounds is None:
        raise invalid("audioSettings.sampleRate", f"is not offered for {output_format}")
    least, most = bounds
    if not least <= asked.get("bitrate", least) <= most:
        raise invalid("audioSettings.bitrate", f"must lie in {least}..{most}", min=least, max=most)
