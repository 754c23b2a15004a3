"""The results' files, made when they are first wanted, and stored media; all without a key."""

import asyncio
import time
import uuid
from dataclasses import dataclass, field

from tests.providers.runware import audio
from tests.providers.runware.account import Media, Task
from tests.providers.runware.faults import OutputKind
from tests.providers.runware.tables import SAMPLE_RATES


@dataclass(slots=True, eq=False)
class File:
    task: Task
    seed: int
    kind: OutputKind | None
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def output_format(self) -> str:
        return str(self.task.request.get("outputFormat", "MP3"))

    @property
    def name(self) -> str:
        return f"{self.uuid}.{self.output_format.lower()}"

    @property
    def content_type(self) -> str:
        return audio.CONTENT_TYPES[self.output_format]

    @property
    def expires(self) -> float:
        """From its acceptance on, by this machine's monotonic clock."""
        ttl = self.task.request.get("ttl")
        return float("inf") if ttl is None else self.task.since + float(ttl)


class Files:
    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        self._media: dict[str, Media] = {}

    def add(self, task: Task, seed: int, kind: OutputKind | None) -> File:
        file = File(task, seed, kind)
        self._files[file.uuid] = file
        return file

    def add_media(self, media: Media) -> None:
        self._media[media.uuid] = media

    def of(self, audio_uuid: str) -> File:
        return self._files[audio_uuid]

    def named(self, name: str) -> File | None:
        """The file of a URL, once its task ended and unless it expired."""
        file = self._files.get(name.partition(".")[0])
        there = file and file.name == name and file.task.state == "success"
        return file if there and file and file.expires > time.monotonic() else None

    def media(self, media_uuid: str) -> bytes | None:
        found = self._media.get(media_uuid)
        return found.content if found else None

    async def content(self, file: File) -> bytes:
        asked = file.task.request.get("audioSettings", {})
        rate = asked.get("sampleRate", SAMPLE_RATES[file.output_format])
        return await asyncio.to_thread(
            audio.make,
            file.task.seconds,
            file.seed,
            file.output_format,
            rate,
            asked.get("channels", 2),
            asked.get("bitrate"),
            file.kind,
        )
