"""What can go wrong with sound.

AudioError
    EncodeFailed          the encoder failed, hung, or made another file than asked: retry, operator
    QualityFailed         the audio is broken: another seed or another backend
    UnsupportedEncoding   the client asked for an impossible file: client
    InputUnreadable       the client's own file or link is no usable sound: client
        UnknownContainer  it does not begin like any kind of file that is taken
        InputTooLong      it has more sound than is taken
    DecodeFailed          the decoder could not be run: operator
"""

from enum import StrEnum


class QualityReason(StrEnum):
    LENGTH = "length"
    NON_FINITE = "non_finite"
    SILENCE = "silence"
    SILENT_TAIL = "silent_tail"
    CLIPPING = "clipping"
    DC_OFFSET = "dc_offset"


class AudioError(Exception):
    """Root of everything this package raises on purpose."""


class EncodeFailed(AudioError):
    """No usable file was made; nothing of it is left on disk."""


class QualityFailed(AudioError):
    """The samples must not be delivered or charged; `reason` is a closed set, the message measures."""

    def __init__(self, reason: QualityReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnsupportedEncoding(AudioError):
    """`param` is the request's field, `nearest` one or two valid values next to the refused, ascending."""

    def __init__(self, param: str, message: str, nearest: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.param = param
        self.nearest = nearest


class InputUnreadable(AudioError):
    """The message is for the client: plain words, nothing of ours in them."""


class UnknownContainer(InputUnreadable):
    """Not a kind of audio file that is taken."""


class InputTooLong(InputUnreadable):
    """More seconds or more bytes than are taken."""


class DecodeFailed(AudioError):
    """Nothing was learned about the file: there is no ffmpeg, or the system starts no more processes."""
