# SPDX-License-Identifier: Apache-2.0
"""Make a two-domain data set with masks from Clothing Co-Parsing (CCP).

    git clone https://github.com/bearpaw/clothing-co-parsing datasets/clothing-co-parsing
    python datasets/generate_ccp_dataset.py --cat1 jeans --cat2 skirt
    python datasets/generate_ccp_dataset.py --cat1 pants --cat2 skirt --holdout 0 --save_root datasets/pants2skirt_ccp

The data set has, for each domain (A shows --cat1, B shows --cat2):

    trainA/0001.jpg  trainA_seg/0001_0.png    pictures annotated pixel by pixel, each with one mask (white = category)
    testA/0007.jpg   testA_seg/0007_0.png     the share of them that --holdout keeps away from training
    valA/1005.jpg    valA_seg/ (empty)        pictures of which only a list of categories is known
"""

from __future__ import annotations

import argparse
import io
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

import numpy as np
import scipy.io
from PIL import Image

from common.command_line import Parser
from common.progress import in_parallel
from data.pictures import mask_png
from datasets.arguments import add_categories, add_holdout, add_writing, check_holdout, parse
from datasets.new_folder import new_folder
from datasets.two_domains import Made, choose_held_out, count_files, print_summary

URL = "https://github.com/bearpaw/clothing-co-parsing"
PHOTOS, PIXEL_LEVEL, IMAGE_LEVEL = Path("photos"), Path("annotations/pixel-level"), Path("annotations/image-level")
END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True)
class Picture:
    """A picture for the new data set: its number in CCP and, for each domain ("A", "B") it belongs to, its mask.

    `masks` holds PNG files as bytes (some kB each), None if only the category is known. `shape` is the (H, W) of the
    annotation, None if there is none.
    """

    name: str
    shape: tuple[int, ...] | None
    masks: dict[str, bytes | None]


def generate(
    data_root: str | Path,
    save_root: str | Path,
    cat1: str = "jeans",
    cat2: str = "skirt",
    holdout: float = 0.1,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write the data set of categories `cat1` (A) and `cat2` (B) to `save_root`; the module docstring has its layout.

    `holdout`, in [0, 1), is the share of each domain's pixel-annotated pictures that goes to `test`; at 0 there is no
    `test`. The same `seed` and categories, in either order, give the same split. `workers` files are processed at a
    time (None: one for each core, at most 8).

    Returns the number of files in each folder.

    Raises:
        UserError: for unknown or equal categories, a holdout out of range, missing, broken or contradictory files in
            `data_root`, or a `save_root` that may not be replaced.
    """
    data_root = Path(data_root)
    check_data_root(data_root)
    wanted = find_categories(read_labels(data_root), cat1, cat2)
    check_holdout(holdout)
    warn_of_photos_without_annotation(data_root)
    with new_folder(save_root, overwrite) as folder:
        annotated, listed = read_annotations(data_root, wanted, workers)
        members = {domain: {picture.name for picture in annotated if domain in picture.masks} for domain in "AB"}
        for domain, category in (("A", cat1), ("B", cat2)):
            if not members[domain]:
                raise UserError(f"no pixel-level annotation in {data_root} shows {category!r}; choose another category")
        held_out = choose_held_out(members["A"], members["B"], holdout, seed)
        phases = {"train": [picture for picture in annotated if picture.name not in held_out], "val": listed}
        if holdout > 0:
            phases["test"] = [picture for picture in annotated if picture.name in held_out]
        write_pictures(data_root, folder, phases, workers)
        return count_files(folder)


def check_data_root(data_root: Path) -> None:
    """Raise UserError, with the command that fetches CCP, unless `data_root` has all the parts of it that are read."""
    clone = f"git clone {URL} {shlex.quote(str(data_root))}"
    if not data_root.is_dir():
        raise UserError(f"{data_root} is not there; get it with: {clone}")
    for part in (PHOTOS, PIXEL_LEVEL, IMAGE_LEVEL, Path("label_list.mat")):
        if not (data_root / part).exists():
            raise UserError(f"{data_root / part} is missing; give CCP as --data_root, or get it again with: {clone}")


def warn_of_photos_without_annotation(data_root: Path) -> None:
    """Print a warning that names photos without annotation; in a complete CCP every photo has one."""
    annotated = {path.stem for level in (PIXEL_LEVEL, IMAGE_LEVEL) for path in (data_root / level).glob("*.mat")}
    bare = sorted({path.stem for path in (data_root / PHOTOS).glob("*.jpg")} - annotated)
    if bare:
        names = ", ".join(f"{name}.mat" for name in bare[:5])
        if len(bare) > 5:
            names += ", …"
        print(
            f"warning: {len(bare)} photos are left out, their annotations are missing in "
            f"{data_root / PIXEL_LEVEL} and {data_root / IMAGE_LEVEL}: {names}",
            file=sys.stderr,
        )


def read_mat(path: Path, key: str) -> np.ndarray:
    """Read one variable of a MATLAB file. Raises UserError if the file is broken or does not have it."""
    try:
        return scipy.io.loadmat(str(path), variable_names=[key])[key]
    except KeyError:
        raise UserError(f"{path} holds no {key!r}; get the file again from {URL}") from None
    except Exception as error:  # on damaged bytes SciPy raises anything from TypeError to zlib.error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); get the file again from {URL}") from error


def read_labels(data_root: Path) -> list[str]:
    """Read CCP's category names, indexed by their label ids in the annotations."""
    path = data_root / "label_list.mat"
    labels = read_mat(path, "label_list")
    try:
        return [str(np.ravel(label)[0]) for label in labels.ravel()]
    except IndexError:
        raise UserError(f"{path} is not a list of names; get the file again from {URL}") from None


def find_categories(labels: list[str], cat1: str, cat2: str) -> dict[str, int]:
    """The label ids {"A": id of cat1, "B": id of cat2}. Raises UserError for unknown or equal categories."""
    for category in (cat1, cat2):
        if category not in labels:
            raise UserError(f"CCP has no category {category!r}; it has: {', '.join(labels)}")
    if cat1 == cat2:
        raise UserError(f"--cat1 and --cat2 are both {cat1!r}; give two different categories")
    return {"A": labels.index(cat1), "B": labels.index(cat2)}


def read_annotations(
    data_root: Path, wanted: dict[str, int], workers: int | None = None
) -> tuple[list[Picture], list[Picture]]:
    """Read the pictures that show a wanted label id: those annotated pixel by pixel, and those with a list of ids only.

    Each file is read once for both domains.
    """
    pixel_level = sorted((data_root / PIXEL_LEVEL).glob("*.mat"))
    image_level = sorted((data_root / IMAGE_LEVEL).glob("*.mat"))
    jobs = [(read_masks, path) for path in pixel_level] + [(read_tags, path) for path in image_level]
    pictures = in_parallel(lambda job: job[0](job[1], wanted), jobs, "annotations", workers)
    annotated = [picture for picture in pictures[: len(pixel_level)] if picture.masks]
    listed = [picture for picture in pictures[len(pixel_level) :] if picture.masks]
    return annotated, listed


def read_masks(path: Path, wanted: dict[str, int]) -> Picture:
    """Read the picture that a pixel-level annotation describes, an (H, W) array of label ids."""
    truth = read_mat(path, "groundtruth")
    if truth.ndim != 2 or truth.dtype.kind not in "ui" or truth.size == 0:
        raise UserError(f"{path} holds no (H, W) array of label ids; get the file again from {URL}")
    masks = {}
    for domain, label in wanted.items():
        inside = truth == label
        if inside.any():
            masks[domain] = mask_png(inside)
    return Picture(path.stem, truth.shape, masks)


def read_tags(path: Path, wanted: dict[str, int]) -> Picture:
    """Read the picture that an image-level annotation describes, a row of label ids."""
    tags = read_mat(path, "tags")
    return Picture(path.stem, None, {domain: None for domain, label in wanted.items() if np.any(tags == label)})


def write_pictures(
    data_root: Path, folder: Path, phases: dict[str, list[Picture]], workers: int | None = None
) -> None:
    """Write photos and masks of every phase under `folder`."""
    for phase in phases:
        for domain in "AB":
            (folder / f"{phase}{domain}").mkdir()
            (folder / f"{phase}{domain}_seg").mkdir()
    jobs = [(phase, picture) for phase, pictures in phases.items() for picture in pictures]
    in_parallel(lambda job: write_picture(data_root, folder, *job), jobs, "pictures", workers)


def write_picture(data_root: Path, folder: Path, phase: str, picture: Picture) -> None:
    """Copy a picture's photo byte for byte to the domains it belongs to, and put its masks beside it."""
    photo = read_photo(data_root / PHOTOS / f"{picture.name}.jpg", picture.shape)
    for domain, mask in picture.masks.items():
        (folder / f"{phase}{domain}" / f"{picture.name}.jpg").write_bytes(photo)
        if mask is not None:
            (folder / f"{phase}{domain}_seg" / f"{picture.name}_0.png").write_bytes(mask)


def read_photo(path: Path, shape: tuple[int, ...] | None) -> bytes:
    """Read the bytes of a JPEG. Raises UserError unless it is whole and, if `shape` is given, of that (H, W)."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as photo:
            width, height = photo.size
            if not content.endswith(END_OF_JPEG):
                photo.load()  # slow, so only for a file that may be cut short: this raises if it is
    except FileNotFoundError:
        raise UserError(f"{path} is missing, but has an annotation; get the file again from {URL}") from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a whole JPEG ({reason}); get the file again from {URL}") from error
    if shape is not None and shape != (height, width):
        raise UserError(
            f"{path} is {width}x{height}, but its annotation {PIXEL_LEVEL / path.stem}.mat is {shape[1]}x{shape[0]}; "
            f"get both again from {URL}"
        )
    return content


def parse_arguments() -> argparse.Namespace:
    """Read the command line; if --save_root is not given, it follows from the categories."""
    parser = Parser(
        "Make a two-domain data set with masks from Clothing Co-Parsing (CCP).",
        epilog=f"Get CCP with: git clone {URL} datasets/clothing-co-parsing",
    )
    parser.add_argument("--data_root", default="datasets/clothing-co-parsing", help="the folder that CCP was cloned to")
    add_categories(parser, "jeans", "skirt", "_ccp", "an unknown name makes the program list the 59 known")
    add_holdout(parser)
    add_writing(parser)
    return parse(parser, "_ccp")


def main() -> None:
    """Make the data set, print its contents and the next command."""
    arguments = parse_arguments()
    counts = generate(**vars(arguments))
    print_summary(arguments.save_root, arguments.cat1, arguments.cat2, Made(counts))


if __name__ == "__main__":
    run_main(main)
