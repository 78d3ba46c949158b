"""What the workers of one server count together: files in a folder, mapped by each, read by whichever is asked.

That is prometheus_client's multi-process mode, but that a file belongs to a worker's place, not to its process. Who
takes the place of one that died goes on counting where that one stopped: no counter falls, and there are no more files
than places, however many workers die.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import mark_process_dead

from hydracore.errors import StartupError
from hydracore.meters import Registry

_PREFIX = "hydracore-metrics-"
# Had from the disk at the start: writing to a mapped file that the disk has no room for would kill the worker.
_BYTES = {
    "counter": 1 << 18,
    "histogram": 1 << 19,
    "gauge_livesum": 1 << 16,
    "gauge_livemax": 1 << 16,
    "gauge_livemostrecent": 1 << 16,
}


class SharedNumbers:
    """The numbers of a server with so many ``places`` for workers."""

    def __init__(self, places: int) -> None:
        self._places = places

    def open(self) -> None:
        """In the parent, before it forks. Raises :class:`StartupError`."""
        _sweep()
        try:
            made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
            # Held as long as one of the server's processes lives; systemd-tmpfiles respects it too.
            self._held = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._held, fcntl.LOCK_EX)
            # Not found by others before it is held.
            self._folder = made.rename(made.with_name(made.name[1:]))
            for place in range(self._places):
                self._make_files(place)
        except OSError as error:
            raise StartupError(
                f"The workers' metrics have no room in {tempfile.gettempdir()}: {error.strerror or error}. "
                "Make some there, set TMPDIR to another folder, or management.port to 0."
            ) from error

    def begin(self, place: int) -> Registry:
        """In a worker: count in that place from now on."""
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._folder)
        # What prometheus_client chooses when it is imported, which it was, for all that is known, before the fork.
        values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]  # no types there
        return CollectorRegistry()

    def forget(self, place: int) -> None:
        """In the parent, when the worker has ended: how things stood with it says nothing any more."""
        with suppress(OSError):  # Whose disk is full, as it may be.
            mark_process_dead(place, str(self._folder))  # type: ignore[no-untyped-call]  # no types there
            self._make_files(place)

    def close(self) -> None:
        """In the parent, at the end."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._held)

    def _make_files(self, place: int) -> None:
        for kind, size in _BYTES.items():
            with suppress(FileExistsError), (self._folder / f"{kind}_{place}.db").open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, size)


def _sweep() -> None:
    """Remove what servers have left behind that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(held).st_uid == os.getuid():
                    shutil.rmtree(folder)
            finally:
                os.close(held)
