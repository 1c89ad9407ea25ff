"""Our shards beside mosaicml-streaming, litdata, webdataset and datasets: samples a second in random order, and a resume.

The same samples for all: two images of 336 x 336 x 3 uint8 and their token ids, returned as numpy arrays; once alone, and once
with the images put into one array, as a batch takes them, which reads every byte. One process, files in the page cache, each
library in its own format without compression. A resume is a fresh opening up to the first sample of the second half. Run:

    pip install mosaicml-streaming webdataset litdata    # in a throwaway venv: their pins are not those of requirements.lock
    python tests/bench/bench_loader.py [SAMPLES]     # a peer that is not installed is left out, and named
"""

import json
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from medmim.tables import table_io
from medmim.training.data import pixel_table
from medmim.training.data.dataset import ShardDataset

SIDE, IMAGES, TOKENS, ROUNDS = 336, 2, 60, 3
LoadedSample = tuple[np.ndarray, list[np.ndarray]]
"""Token ids; images, uint8, SIDE x SIDE x 3."""


def make_samples(count: int) -> list[LoadedSample]:
    rng = np.random.default_rng(0)
    shape = (SIDE, SIDE, 3)
    return [
        (rng.integers(0, 32000, TOKENS), [rng.integers(0, 256, shape, np.uint8) for _ in range(IMAGES)]) for _ in range(count)
    ]


def sum_bytes(sample: LoadedSample) -> int:
    """A sum of every byte, which says that all loaders gave the same."""
    return int(sample[0].sum()) + sum(int(image.reshape(-1).view(np.uint64).sum() % 2**32) for image in sample[1])


class Loader(ABC):
    """One library: samples are written once, then opened, and passed over in random order, from the first or from one on."""

    needs = ""

    def __init__(self, folder: Path, samples: list[LoadedSample]) -> None:
        self.folder, self.count = folder, len(samples)
        folder.mkdir()
        self.write_samples(samples)

    @abstractmethod
    def write_samples(self, samples: list[LoadedSample]) -> None:
        """In the library's own format."""

    @abstractmethod
    def open_dataset(self) -> Any:
        """What is kept open for a training."""

    @abstractmethod
    def iterate_samples(self, opened: Any, at: int = 0) -> Iterator[LoadedSample]:
        """The samples of a pass from the `at`th on."""

    def shuffled_indices(self, at: int) -> list[int]:
        """For those that leave the order to us."""
        return np.random.default_rng(1).permutation(self.count)[at:].tolist()


class Ours(Loader):
    def write_samples(self, samples: list[LoadedSample]) -> None:
        rows, images = [], []
        for n, (ids, shown) in enumerate(samples):
            names = [f"{n:06}-{k}" for k in range(len(shown))]
            images += [
                {"image_id": name, "height": SIDE, "width": SIDE, "pixels": image.tobytes()}
                for name, image in zip(names, shown, strict=True)
            ]
            rows.append({"qa_id": str(n), "input_ids": ids, "labels": ids, "image_ids": names, "length": len(ids)})
        table_io.write_table(self.folder / "samples.parquet", "samples", rows)
        pixel_table.write_pixels(self.folder / "pixels.parquet", images)

    def open_dataset(self) -> ShardDataset:
        return ShardDataset(self.folder / "samples.parquet", self.folder / "pixels.parquet")

    def iterate_samples(self, opened: ShardDataset, at: int = 0) -> Iterator[LoadedSample]:
        for index in self.shuffled_indices(at):
            sample = opened[index]
            yield sample.input_ids, sample.pixels


class Streaming(Loader):
    needs = "streaming"

    def write_samples(self, samples: list[LoadedSample]) -> None:
        from streaming import MDSWriter

        columns = {"ids": "ndarray:int64", **{f"image{k}": "ndarray:uint8" for k in range(IMAGES)}}
        with MDSWriter(out=str(self.folder / "mds"), columns=columns) as out:
            for ids, images in samples:
                out.write({"ids": ids, **{f"image{k}": image for k, image in enumerate(images)}})

    def open_dataset(self) -> Any:
        from streaming import StreamingDataset

        return StreamingDataset(local=str(self.folder / "mds"), shuffle=True, shuffle_seed=1, batch_size=1)

    def iterate_samples(self, opened: Any, at: int = 0) -> Iterator[LoadedSample]:
        if at:
            opened.load_state_dict(opened.state_dict(at, from_beginning=True))
        for row in opened:
            yield row["ids"], [row[f"image{k}"] for k in range(IMAGES)]


class Webdataset(Loader):
    needs = "webdataset"

    def write_samples(self, samples: list[LoadedSample]) -> None:
        import webdataset

        with webdataset.TarWriter(str(self.folder / "samples.tar")) as out:
            for n, (ids, images) in enumerate(samples):
                parts = {f"image{k}.bin": image.tobytes() for k, image in enumerate(images)}
                out.write({"__key__": f"{n:06}", "ids.bin": ids.tobytes(), **parts})

    def open_dataset(self) -> Any:
        import webdataset

        return webdataset.WebDataset(str(self.folder / "samples.tar"), shardshuffle=False).shuffle(1000, seed=1)

    def iterate_samples(self, opened: Any, at: int = 0) -> Iterator[LoadedSample]:
        for row in islice(opened, at, None):  # it can't go to a sample: those before are read and thrown away
            images = [np.frombuffer(row[f"image{k}.bin"], np.uint8).reshape(SIDE, SIDE, 3) for k in range(IMAGES)]
            yield np.frombuffer(row["ids.bin"], np.int64), images


class Litdata(Loader):
    needs = "litdata"

    def write_samples(self, samples: list[LoadedSample]) -> None:
        from litdata.streaming.writer import BinaryWriter

        writer = BinaryWriter(str(self.folder / "lit"), chunk_bytes="64MB")
        (self.folder / "lit").mkdir(exist_ok=True)
        for n, (ids, images) in enumerate(samples):
            writer[n] = {"ids": ids, **{f"image{k}": image for k, image in enumerate(images)}}
        writer.done()
        writer.merge()

    def open_dataset(self) -> Any:
        from litdata import StreamingDataset

        return StreamingDataset(str(self.folder / "lit"), shuffle=True, seed=1, drop_last=False)

    def iterate_samples(self, opened: Any, at: int = 0) -> Iterator[LoadedSample]:
        if at:
            opened.load_state_dict(opened.state_dict(at, 0, 1))
        for row in opened:
            yield row["ids"], [row[f"image{k}"] for k in range(IMAGES)]


class Arrow(Loader):
    needs = "datasets"

    def write_samples(self, samples: list[LoadedSample]) -> None:
        import pyarrow as pa
        from datasets import Dataset

        columns = {"ids": pa.array([ids.tobytes() for ids, _ in samples], pa.large_binary())}
        for k in range(IMAGES):
            columns[f"image{k}"] = pa.array([images[k].tobytes() for _, images in samples], pa.large_binary())
        Dataset(pa.table(columns)).save_to_disk(str(self.folder / "arrow"))

    def open_dataset(self) -> Any:
        from datasets import load_from_disk

        return load_from_disk(str(self.folder / "arrow"), keep_in_memory=False)

    def iterate_samples(self, opened: Any, at: int = 0) -> Iterator[LoadedSample]:
        for index in self.shuffled_indices(at):
            row = opened[index]
            images = [np.frombuffer(row[f"image{k}"], np.uint8).reshape(SIDE, SIDE, 3) for k in range(IMAGES)]
            yield np.frombuffer(row["ids"], np.int64), images


LOADERS = {"ours": Ours, "mosaicml-streaming": Streaming, "litdata": Litdata, "webdataset": Webdataset, "datasets": Arrow}


def best_seconds(run: Callable[[], Any]) -> float:
    """Seconds of the fastest of ROUNDS."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    samples = make_samples(count)
    expected_sum = sum(sum_bytes(s) for s in samples)
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in LOADERS.items():
            if kind.needs and find_spec(kind.needs) is None:
                print(f"{name}: not installed", file=sys.stderr)
                continue
            loader = kind(Path(folder, name), samples)
            opened = loader.open_dataset()
            assert sum(sum_bytes(s) for s in loader.iterate_samples(opened)) == expected_sum, (
                f"{name} gives other samples"
            )  # and warms the page cache
            epoch = best_seconds(lambda loader=loader, opened=opened: [None for _ in loader.iterate_samples(opened)])
            batched = best_seconds(
                lambda loader=loader, opened=opened: [len(np.stack(images)) for _, images in loader.iterate_samples(opened)]
            )
            resume = best_seconds(lambda loader=loader: next(loader.iterate_samples(loader.open_dataset(), count // 2)))
            results[name] = {
                "samples_per_second": count / epoch,
                "batched_samples_per_second": count / batched,
                "resume_ms": 1e3 * resume,
            }
    ours = results["ours"]
    print(f"{count} samples of {IMAGES} images, {SIDE} x {SIDE} x 3, best of {ROUNDS}")
    print(f"{'':<20}{'samples/s':>12}{'ours / theirs':>15}{'in a batch':>12}{'ours / theirs':>15}{'resume at half':>16}")
    for name, speeds in results.items():
        alone, batched = (ours[key] / speeds[key] for key in ("samples_per_second", "batched_samples_per_second"))
        print(
            f"{name:<20}{speeds['samples_per_second']:>12,.0f}{alone:>15.1f}{speeds['batched_samples_per_second']:>12,.0f}{batched:>15.1f}"
            f"{speeds['resume_ms']:>13,.1f} ms"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
