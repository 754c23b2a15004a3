"""Sound on its way in and out: decoding what clients bring, and making the files that they ordered."""

from gateway.audio.decode import Decoder, SoundFacts, check_container
from gateway.audio.encode import MAX_SECONDS, EncodedFile, Encoder
from gateway.audio.errors import (
    AudioError,
    DecodeFailed,
    EncodeFailed,
    InputTooLong,
    InputUnreadable,
    QualityFailed,
    QualityReason,
    UnknownContainer,
    UnsupportedEncoding,
)
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
    "DecodeFailed",
    "Decoder",
    "EncodeFailed",
    "EncodedFile",
    "Encoder",
    "Encoding",
    "InputTooLong",
    "InputUnreadable",
    "QualityBounds",
    "QualityFailed",
    "QualityReason",
    "QualityReport",
    "SoundFacts",
    "UnknownContainer",
    "UnsupportedEncoding",
    "check_container",
    "check_quality",
    "resolve_encoding",
]
