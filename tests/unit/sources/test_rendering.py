"""A file is read and decoded once, however many pictures are shown of it."""

from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from medmim.sources.base import Picture, SourceContents, TableBuilder
from traced_programs import note_call, read_calls


def decode_counted(data: bytes, calls: Path) -> np.ndarray:
    """A stack of 8 x 8 pixels, each decoding noted in a file, as it is another process that does it."""
    note_call(calls)
    if data.startswith(b"broken"):
        raise ValueError("is broken")
    return np.frombuffer(data, np.uint8).reshape(-1, 8, 8)


def cut_layer(stack: np.ndarray, layer: int) -> np.ndarray:
    if layer >= len(stack):
        raise ValueError(f"there is no layer {layer}")
    return stack[layer]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_file_is_decoded_once_for_all_its_pictures(tmp_path: Path, threads: int) -> None:
    stacks = {f"{name}.bin": np.random.default_rng(n).integers(0, 256, (5, 8, 8), np.uint8) for n, name in enumerate("abc")}
    for name, stack in stacks.items():
        (tmp_path / name).write_bytes(stack.tobytes())
    (tmp_path / "d.bin").write_bytes(b"broken")
    decode = partial(decode_counted, calls=tmp_path / "calls")
    pictures = [
        Picture(
            file=name,
            part=f"layer {layer}",
            decode_file=decode,
            read_pixels=partial(cut_layer, layer=layer),
            patient="p",
            study="s",
            modality="m",
        )
        for layer in (4, 0, 2, 7)
        for name in (*stacks, "d.bin", "e.bin")
    ]
    builder = TableBuilder("toy", tmp_path, SourceContents(pictures=pictures), 8, threads)
    rows = list(builder.iter_image_rows())
    assert len(read_calls(tmp_path / "calls")) == 4, "three stacks and the broken file"
    assert [row["origin_file"] for row in rows] == [name for name in sorted(stacks) for _ in range(3)]
    assert {row["origin_sha256"] for row in rows} == {sha256(stack.tobytes()).hexdigest() for stack in stacks.values()}
    reasons = {r.item: r.reason for r in builder.rejected}
    assert reasons == {
        **{f"{name} layer 7": "there is no layer 7" for name in stacks},
        **{f"d.bin layer {layer}": "is broken" for layer in (0, 2, 4, 7)},
        **{f"e.bin layer {layer}": "no such file" for layer in (0, 2, 4, 7)},
    }
