"""Sound on its way out: what can be ordered, whether audio is worth its price, making the files."""

from gateway.audio.encode import MAX_SECONDS, EncodedFile, Encoder
from gateway.audio.errors import AudioError, EncodeFailed, QualityFailed, QualityReason, UnsupportedEncoding
from gateway.audio.formats import (
    CONTENT_TYPES,
    MASTER,
    MASTER_SAMPLE_RATE,
    AudioFormat,
    AudioSettings,
    Encoding,
    resolve_encoding,
)
from gateway.audio.quality import STEM_BOUNDS, QualityBounds, QualityReport, check_quality

__all__ = [
    "CONTENT_TYPES",
    "MASTER",
    "MASTER_SAMPLE_RATE",
    "MAX_SECONDS",
    "STEM_BOUNDS",
    "AudioError",
    "AudioFormat",
    "AudioSettings",
    "EncodeFailed",
    "EncodedFile",
    "Encoder",
    "Encoding",
    "QualityBounds",
    "QualityFailed",
    "QualityReason",
    "QualityReport",
    "UnsupportedEncoding",
    "check_quality",
    "resolve_encoding",
]
