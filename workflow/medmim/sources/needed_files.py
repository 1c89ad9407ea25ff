"""Which files of a source's folder a run needs: what its adapter reads, and the pictures that it shows. No others are touched."""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medmim.common.files import is_inside_folder
from medmim.common.outside_files import is_file, translate_read_errors
from medmim.common.watched_paths import PathRecorder, is_file_stamp, record_paths
from medmim.sources.base import Adapter, LimitedAdapter, ReleaseAdapter, SourceContents

FileHasher = Callable[[Path, str, str], str]
"""sha256 of a file, by the folder, its path below it, and its stamp."""


def read_source_contents(
    adapter: Adapter, root: Path, release_paths: Collection[str], limit: int | None = None
) -> SourceContents:
    """What a folder holds by its tables, with the pictures of these paths of the release. Raises UserError.

    Of patients beyond the limit it may hold less.
    """
    with translate_read_errors(root):
        # Of the release the limit takes the first patients whom it names, who may be others than those of the tables.
        if isinstance(adapter, LimitedAdapter) and not release_paths:
            contents = adapter.read_limited_contents(root, limit)
        else:
            contents = adapter.read_contents(root)
        if release_paths and isinstance(adapter, ReleaseAdapter):
            adapter.add_released_pictures(root, contents, release_paths)
    return contents


class NeededFiles:
    """The files that a run needs of a folder: `paths`, sorted; and all that was looked at to find them: `recorder`.

    `choose` makes of the folder's contents those that are wanted, of so many patients.
    """

    def __init__(
        self,
        adapter: Adapter,
        root: Path,
        release_paths: Collection[str],
        limit: int | None,
        choose: Callable[[SourceContents], SourceContents],
    ) -> None:
        self.root = root
        with record_paths(root) as recorder:
            contents = choose(read_source_contents(adapter, root, release_paths, limit))
            names = {p.file.partition("!")[0] for p in contents.pictures}
            picture_paths = {name for name in sorted(names) if is_inside_folder(name) and is_file(root / name)}
        self.recorder: PathRecorder = recorder
        self.paths = sorted(p for p in recorder.read_paths | picture_paths if is_file_stamp(recorder.stamps[p]))

    def iter_index_rows(self, hash_file: FileHasher, threads: int) -> Iterator[dict[str, Any]]:
        """Rows of the `files` table, sorted by path; so many files are hashed at once."""
        stamps = [self.recorder.stamps[path] for path in self.paths]
        pool = ThreadPoolExecutor(threads)
        try:
            hashes = pool.map(hash_file, [self.root] * len(stamps), self.paths, stamps)
            for path, stamp, sha256 in zip(self.paths, stamps, hashes, strict=True):
                yield {"path": path, "bytes": int(stamp.split()[0]), "sha256": sha256}
        finally:
            pool.shutdown(cancel_futures=True)  # the first error ends it
