"""Scratch folders: gone with their process, or with the next one."""

from pathlib import Path

from gateway.files.scratch import scratch_folder


def test_a_scratch_folder_goes_with_its_worker(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        (folder / "master.flac").write_bytes(b"sound")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_a_killed_worker_left_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / "0123456789abcdef"
    left.mkdir(parents=True)
    (left / "master.flac").write_bytes(b"sound")
    left.with_suffix(".lock").touch()
    with scratch_folder(tmp_path) as folder:
        assert not left.exists()
        assert folder.is_dir()


def test_the_folder_of_a_living_worker_stays(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert first.is_dir()
        assert second.is_dir()
        assert first != second
