# SPDX-License-Identifier: Apache-2.0
"""Translate a picture with a file that export.py wrote, without NNabla and without the rest of this project.

    pip install numpy pillow onnxruntime
    python onnx_translate.py --model model.onnx --image photo.jpg --masks photo_0.png photo_1.png --output results

Masks are pictures, white where the instance is, one for each instance. The picture is resized to the size that the
model was trained at (--size: to another). results/picture.png is the translation, results/mask_{i}.png what became of
the i-th mask. Python 3.8 or newer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

import numpy as np
from PIL import Image, ImageOps

Size = Tuple[int, int]  # (height, width)


def main() -> None:
    """Run the command line."""
    args = parse_args()
    model = load_model(args.model)
    settings = model.get_modelmeta().custom_metadata_map
    size = args.size or (int(settings["height"]), int(settings["width"]))
    picture = read_picture(args.image, size)
    masks = read_masks(args.masks, size)
    picture, masks = translate(model, settings, picture, masks)
    args.output.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_bytes(picture).transpose(1, 2, 0)).save(args.output / "picture.png")
    for i, mask in enumerate(masks):
        Image.fromarray(to_bytes(mask)).save(args.output / f"mask_{i}.png")
    print(f"translated {settings['direction']} with {len(masks)} masks; see {args.output / 'picture.png'}")


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the .onnx file")
    parser.add_argument("--image", type=Path, required=True, help="the picture")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="the mask of each instance")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the results")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="multiples of 4, at least 8")
    args = parser.parse_args()
    for path in (args.model, args.image, *args.masks):
        if not path.is_file():
            parser.error(f"there is no file {path}")
    if args.size and any(side < 8 or side % 4 for side in args.size):
        parser.error(f"--size {args.size[0]} {args.size[1]}: give multiples of 4 that are at least 8")
    return args


def load_model(path: Path) -> Any:
    """Load a model, an `onnxruntime.InferenceSession`."""
    # not at the top, so that --help works without it
    import onnxruntime

    # with onnxruntime-gpu, put "CUDAExecutionProvider" before it
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def translate(
    model: Any, settings: Dict[str, str], picture: np.ndarray, masks: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """Translate a picture (3, H, W) and its masks (N, H, W), all in [-1, 1]; the results have the same shapes.

    The largest instances come first. Each pass takes the next few, as many as in training, and starts from the picture
    that the last one made. Empty masks stay as they are.
    """
    masks = masks.copy()
    ins_per = int(settings["ins_per"])
    if ins_per == 0:
        # trained without masks: the whole picture is translated; the network wants a mask, so it gets an empty one
        picture, _ = run(model, picture, -np.ones((1, *picture.shape[1:]), np.float32))
        return picture, masks
    area = (masks > 0).sum(axis=(1, 2))
    largest_first = np.argsort(-area, kind="stable")
    order = largest_first[area[largest_first] > 0]
    for start in range(0, len(order), ins_per):
        chosen = order[start : start + ins_per]
        picture, masks[chosen] = run(model, picture, masks[chosen])
    return picture, masks


def run(model: Any, picture: np.ndarray, masks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Run one pass; the shapes are those of `translate`."""
    outputs = ["translated_picture", "translated_masks"]
    picture, masks = model.run(outputs, {"picture": picture[None], "masks": masks[:, None]})
    return picture[0], masks[:, 0]


def read_picture(path: Path, size: Size) -> np.ndarray:
    """Read a picture, upright and resized: (3, H, W) float32 in [-1, 1]."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB").resize(size[::-1], Image.BICUBIC)
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1


def read_masks(paths: Sequence[Path], size: Size) -> np.ndarray:
    """Read 8-bit masks, upright and resized: (N, H, W) float32, +1 inside and -1 outside."""
    masks = np.empty((len(paths), *size), np.float32)
    for mask, path in zip(masks, paths):
        level = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("L"), np.float32) / 255
        mask[:] = np.where(np.asarray(Image.fromarray(level).resize(size[::-1], Image.BICUBIC)) > 0.5, 1, -1)
    return masks


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Convert values in [-1, 1] to uint8."""
    return np.clip((values + 1) * 127.5, 0, 255).round().astype(np.uint8)


if __name__ == "__main__":
    main()
