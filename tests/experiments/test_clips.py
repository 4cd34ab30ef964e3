"""Clips: packed and unpacked without loss, shown in one picture, written as files that a player reads."""

from pathlib import Path

import av
import numpy as np
import torch

from experiments.clips import SEEN, as_bytes, contact_sheet, pack, unpack, write_mp4


def test_packing_stacks_neighbouring_pictures_and_unpacking_undoes_it() -> None:
    clips = torch.arange(6).float().view(1, 1, 6, 1, 1).expand(2, 3, 6, 4, 5)
    latents = pack(clips, 2)
    assert latents.shape == (2, 6, 3, 4, 5)
    assert latents[0, :, 1, 0, 0].tolist() == [2, 2, 2, 3, 3, 3]
    assert torch.equal(unpack(latents, 2), clips)


def test_bytes_and_contact_sheet_keep_the_order_of_pictures() -> None:
    levels = torch.linspace(-1, 1, 6)
    latents = pack(levels.view(1, 1, 6, 1, 1).expand(1, 3, 6, 8, 8), 3)
    clip = as_bytes(latents, 3)[0]
    assert clip[:, 0, 0, 0].tolist() == [0, 51, 102, 153, 204, 255]
    sheet = np.array(contact_sheet(clip))
    assert sheet.shape == (19, 28, 3)
    assert sheet[1::9, 1::9, 0].tolist() == [[0, 51, 102], [153, 204, 255]]
    assert (sheet[::9] == 192).all() and (sheet[:, ::9] == 192).all()


def test_mp4_has_every_picture_enlarged(tmp_path: Path) -> None:
    clip = np.stack([np.full((32, 48, 3), level, np.uint8) for level in (0, 128, 255)])
    write_mp4(tmp_path / "0.mp4", clip)
    with av.open(tmp_path / "0.mp4") as file:
        seen = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert [frame.shape for frame in seen] == [(SEEN, SEEN * 3 // 2, 3)] * 3
    assert [round(float(frame.mean()) / 128) for frame in seen] == [0, 1, 2]
