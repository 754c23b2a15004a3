"""Audio goes when its time is over, and only then; the job stays."""

from pathlib import Path

from gateway.jobs.retention import audio_folder
from gateway.storage import AudioStore, ObjectMissing
from gateway.workers.janitor import sweep
from tests.workbench import Workbench


async def exists(store: AudioStore, key: str) -> bool:
    try:
        await store.head(key)
    except ObjectMissing:
        return False
    return True


async def test_expired_audio_is_deleted_with_what_failed_attempts_left(
    bench: Workbench, store: AudioStore, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"sound")
    principal = await bench.customer()
    keys = {}
    for _ in range(2):
        job = await bench.submit(principal)
        await bench.deliver(await bench.claim_one())
        folder = audio_folder(job.organization_id, job.id)
        keys[job.id] = [f"{folder}/1-0.flac", f"{folder}/2-0.flac"]
        for key in keys[job.id]:
            await store.put_file(key, file, "audio/flac")
    old, young = keys
    await bench.pool.execute("UPDATE job SET expires_at = now() - interval '1 second' WHERE id = $1", old)
    assert await sweep(bench.pool, store) == 1
    assert [await exists(store, key) for key in keys[old]] == [False, False]
    assert [await exists(store, key) for key in keys[young]] == [True, True]
    assert await sweep(bench.pool, store) == 0
    assert await bench.pool.fetchval("SELECT status FROM job WHERE id = $1", old) == "completed"
