"""From samples to a stored, paid-for file: check, keep the master, make what was asked, store both.

Everything here happens before money moves; whatever fails leaves the customer uncharged.
"""

import asyncio
import tempfile
import uuid
from pathlib import Path

from engine import Task
from gateway.audio import (
    CONTENT_TYPES,
    STEM_BOUNDS,
    AudioFormat,
    EncodedFile,
    Encoder,
    QualityBounds,
    QualityFailed,
    QualityReason,
    check_quality,
    resolve_encoding,
)
from gateway.backends.base import Recording, RenderTask
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.jobs.job import JobResult, Track
from gateway.jobs.retention import audio_folder
from gateway.signed_urls import content_disposition
from gateway.storage import AudioStore


class Delivery:
    """Turns recordings into stored tracks."""

    def __init__(self, *, encoder: Encoder, store: AudioStore, scratch: Path) -> None:
        """`scratch` is where files lie while they are made; it must exist."""
        self._encoder = encoder
        self._store = store
        self._scratch = scratch

    async def deliver(
        self, task: RenderTask, organization_id: uuid.UUID, recordings: tuple[Recording, ...]
    ) -> JobResult:
        """Raises QualityFailed, EncodeFailed or StoreError; nothing is charged for any of them."""
        request = task.request
        if len(recordings) != request.n:
            raise QualityFailed(QualityReason.LENGTH, f"{len(recordings)} of {request.n} songs were made")
        for recording in recordings:
            await asyncio.to_thread(
                check_quality,
                recording.samples,
                sample_rate=recording.sample_rate,
                expected_frames=expected_frames(request, recording),
                bounds=_bounds(request.task),
            )
        with tempfile.TemporaryDirectory(dir=self._scratch, ignore_cleanup_errors=True) as scratch:
            tracks = [
                await self._track(task, organization_id, index, recording, Path(scratch))
                for index, recording in enumerate(recordings)
            ]
        return JobResult(
            tracks=tuple(tracks),
            deterministic=recordings[0].deterministic,
        )

    async def _track(
        self, task: RenderTask, organization_id: uuid.UUID, index: int, recording: Recording, scratch: Path
    ) -> Track:
        request = task.request
        master = await self._encoder.write_master(
            recording.samples, sample_rate=recording.sample_rate, folder=scratch
        )
        encoding = resolve_encoding(request.format, request.audio_settings)
        # The attempt is in the name: a worker that lost its lease must not touch the winner's files.
        stem = f"{audio_folder(organization_id, task.job_id)}/{task.attempt}-{index}"
        master_key = f"{stem}.{AudioFormat.FLAC}"
        await self._put(master_key, master, file_name(task, index, AudioFormat.FLAC))
        if request.format is AudioFormat.FLAC:
            key, file = master_key, master
        else:
            key, file = (
                f"{stem}.{request.format}",
                await self._encoder.encode(master, encoding, folder=scratch),
            )
            await self._put(key, file, file_name(task, index, request.format))
        return Track(
            key=key,
            master_key=master_key,
            format=request.format.value,
            content_type=CONTENT_TYPES[request.format],
            frames=master.frames,
            master_sample_rate=master.sample_rate,
            sample_rate=file.sample_rate,
            channels=file.channels,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            seed=recording.seed,
            file_name=file_name(task, index, request.format),
        )

    async def _put(self, key: str, file: EncodedFile, name: str) -> None:
        await self._store.put_file(key, file.path, file.content_type, disposition=content_disposition(name))


def expected_frames(request: GenerationRequest, recording: Recording) -> int:
    """What was ordered, at the recording's rate; where only the most is known, what came, up to that."""
    most = request.frames * recording.sample_rate // SAMPLE_RATE
    return min(most, recording.samples.shape[1]) if request.open_length else most


def _bounds(task: Task) -> QualityBounds:
    """A single track may rest for most of a song."""
    return STEM_BOUNDS if task in {Task.EXTRACT, Task.LEGO} else QualityBounds()


def file_name(task: RenderTask, index: int, audio_format: AudioFormat) -> str:
    """What a downloaded file is called: readable, and different for every job."""
    return f"{task.model}-{task.job_id.hex[-8:]}-{index + 1}.{audio_format}"
