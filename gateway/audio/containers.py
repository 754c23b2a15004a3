"""Which audio files clients may bring, told by their first bytes: neither name nor header is believed."""

from typing import Final

import msgspec

HEAD_BYTES: Final = 64
"""As much as is looked at."""
ACCEPTED: Final = "wav, flac, mp3, ogg (vorbis, opus, flac), m4a (mp4), aiff and webm (matroska)"
"""For people."""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of file. `demuxer` is ffmpeg's name for it, and the only one that may read such a file."""

    name: str
    demuxer: str
    content_type: str


WAV: Final = Container(name="wav", demuxer="wav", content_type="audio/wav")
FLAC: Final = Container(name="flac", demuxer="flac", content_type="audio/flac")
MP3: Final = Container(name="mp3", demuxer="mp3", content_type="audio/mpeg")
OGG: Final = Container(name="ogg", demuxer="ogg", content_type="audio/ogg")
M4A: Final = Container(name="m4a", demuxer="mov", content_type="audio/mp4")
AIFF: Final = Container(name="aiff", demuxer="aiff", content_type="audio/aiff")
WEBM: Final = Container(name="webm", demuxer="matroska", content_type="audio/webm")

CONTAINERS: Final = {container.name: container for container in (WAV, FLAC, MP3, OGG, M4A, AIFF, WEBM)}
"""By name, which is also the extension of stored files."""


_MAGIC: Final = (
    (0, b"RIFF", WAV),
    (0, b"RF64", WAV),
    (0, b"FORM", AIFF),
    (0, b"fLaC", FLAC),
    (0, b"OggS", OGG),
    (0, b"\x1aE\xdf\xa3", WEBM),
    (4, b"ftyp", M4A),
    (0, b"ID3", MP3),
)
_FORMS: Final = {WAV: (b"WAVE",), AIFF: (b"AIFF", b"AIFC")}
"""What stands in the eighth byte of containers that can hold anything."""


def sniff(head: bytes) -> Container | None:
    """The kind of a file that begins like this; None for everything that is not taken."""
    for offset, magic, container in _MAGIC:
        if head.startswith(magic, offset):
            forms = _FORMS.get(container)
            return container if forms is None or head[8:12] in forms else None
    return MP3 if _is_mp3_frame(head) else None


def _is_mp3_frame(head: bytes) -> bool:
    """ISO 11172-3, 2.4.1.3: 11 bits of sync, layer III, and none of the reserved values."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] >> 3 & 3 == 1:
        return False
    return head[2] >> 4 not in {0, 15} and head[2] >> 2 & 3 != 3
