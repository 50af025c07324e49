# SPDX-License-Identifier: Apache-2.0
"""The command lines of train.py, translate.py, evaluate.py, segment.py, export.py and app.py, checked first."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Callable, List, Sequence, Tuple

from common.command_line import Parser, box, numbers, real, whole
from common.errors import UserError
from common.json_file import read_json
from masks.formats import FORMATS
from models import BACKGROUNDS, LARGEST_SIDE, Architecture, smallest_size

SIDE = whole(1, LARGEST_SIDE)
BACKGROUND_HELP = (
    "keep: outside of its instances' old and new masks a translated picture stays as it was; network: all of it is "
    "what the network makes, as in the authors' code"
)

# A resumed run may not change the model, the data, the losses and their minimization, and the place of its models. It
# may change how long it trains, and with it the learning rate's course, and the device, which changes rounding only.
FIXED_ON_RESUME = (
    "loadSizeW loadSizeH fineSizeW fineSizeH ngf ndf n_blocks n_layers_D norm no_flip batch_size "
    "learning_rate_G learning_rate_D beta1 beta2 lambda_cyc lambda_idt lambda_ctx ins_max ins_per set_order "
    "background pool_size seed type_config pretrained model_save_path"
).split()


def train_args(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line of train.py.

    With `--resume`, arguments that are not given are those of the run that goes on.

    Raises:
        UserError: for every mistake that can be found before the data is read.
    """
    parser = _train_parser(description)
    args = parser.parse_args(argv)
    if args.resume:
        args = _resumed(parser, args.monitor_path, sys.argv[1:] if argv is None else argv)
    _check_sizes(args)
    if args.pretrained and not args.resume and not Path(args.pretrained).exists():
        raise UserError(f"no file {args.pretrained} (--pretrained)")
    return args


def train_settings(args: argparse.Namespace) -> List[Tuple[str, Any, Any]]:
    """The (flag, value, default) of each argument of a run, in the order of train.py's --help.

    `--resume` is not one of the run, but of a command that goes on with it.
    """
    return [setting for setting in _train_parser("").settings(args) if setting[0] != "--resume"]


def translate_args(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line of translate.py.

    Raises:
        UserError: where arguments are wrong or do not fit together.
    """
    parser = Parser(description)
    _add_input(parser.add_argument_group("input"))
    _add_masks(parser.add_argument_group("instances"))
    _add_translation(parser.add_argument_group("translation"))
    _add_context(parser.add_argument_group("device"))
    args = parser.parse_args(argv)
    if (args.image is None) == (args.dataroot is None):
        raise UserError("give either --dataroot (with --phase), or --image with --masks")
    if args.dataroot is not None and args.masks:
        raise UserError("--masks goes with --image; the masks of a --dataroot are in its PHASE{A,B}_seg folders")
    if args.box and (args.image is None or Path(args.image).is_dir()):
        raise UserError("--box goes with one picture as --image")
    given = [f"--{name}" for name in ("masks", "box", "segmenter") if getattr(args, name)]
    if len(given) > 1:
        raise UserError(f"{given[0]} and {given[1]} both give the instances; use one of them")
    return args


def evaluate_args(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line of evaluate.py.

    Raises:
        UserError: where arguments are wrong.
    """
    parser = Parser(description)
    add = parser.add_argument_group("input").add_argument
    _add_model(add)
    add("--dataroot", required=True, help="data set folder; the classifier learns from its training pictures")
    add("--phase", default="test", help="which pictures to translate; they need masks")
    add("--direction", choices=("both", "AtoB", "BtoA"), default="both", help="which domain into which")
    add("--output", default="evaluation", help="folder for metrics.json, metrics.md, index.html and pictures")
    add("--overwrite", action="store_true", help="replace the evaluation that is already in --output")
    add("--inception", default=None, help="Inception-v3.nnp of NNabla, for FID and KID (default: its own place)")
    _add_translation(parser.add_argument_group("translation"))
    _add_context(parser.add_argument_group("device"))
    return parser.parse_args(argv)


def segment_args(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line of segment.py; `command` is "train" or "predict".

    Raises:
        UserError: where arguments are wrong or do not fit together.
    """
    parser = Parser(description)
    commands = parser.add_subparsers(dest="command", metavar="train|predict", required=True)
    training = _add_command(commands, "train", "Learn to find the instances of a data set's two domains.")
    prediction = _add_command(commands, "predict", "Find them in other pictures.")
    _add_segmenter_training(training)
    _add_segmentation(prediction)
    for command in (training, prediction):
        _add_context(command.add_argument_group("device"))
    args = parser.parse_args(argv)
    if args.command == "predict" and (args.image is None) == (args.dataroot is None):
        raise UserError("give either --dataroot (with --phase), or --image with --domain")
    if args.command == "predict" and args.image is not None and args.domain is None:
        raise UserError("--image needs --domain: A or B, the one whose instances are to be found")
    return args


def export_args(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line of export.py.

    Raises:
        UserError: where arguments are wrong or do not fit together.
    """
    parser = Parser(description)
    add = parser.add_argument
    _add_model(add)
    add("--direction", choices=("AtoB", "BtoA"), default="AtoB", help="which domain into which")
    add("--format", choices=("onnx", "nnp"), default="onnx", help="onnx: for onnxruntime and others; nnp: NNabla's own")
    add("--output", required=True, metavar="FILE", help="the file to write, such as model.onnx or model.nnp")
    add("--overwrite", action="store_true", help="replace the file if it exists")
    add(
        "--type-config",
        "-t",
        choices=("float", "half"),
        default="float",
        help="half: convolutions of an ONNX file in half precision, which halves the file; all else remains in float",
    )
    add("--fineSizeW", type=SIDE, default=None, help="width to work at, a multiple of 4 (default: as trained)")
    add("--fineSizeH", type=SIDE, default=None, help="height to work at, a multiple of 4 (default: as trained)")
    add("--ins-per", type=whole(1), default=None, help="instances in one pass (default: as trained)")
    add("--background", choices=BACKGROUNDS, default=None, help=f"{BACKGROUND_HELP} (default: as trained)")
    args = parser.parse_args(argv)
    output = Path(args.output)
    if output.suffix != f".{args.format}":
        raise UserError(f"--output {output} does not end in .{args.format}; give a name such as model.{args.format}")
    if args.format == "nnp" and args.type_config == "half":
        raise UserError("--type-config half is for --format onnx; leave it out for nnp")
    return args


def app_args(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line of app.py.

    Raises:
        UserError: where arguments are wrong.
    """
    parser = Parser(description)
    add = parser.add_argument
    add(
        "--model",
        action="append",
        required=True,
        help="run folder of train.py (its newest model is taken), or a .h5 file; may be given several times",
    )
    add("--segmenter", default=None, help="model of segment.py that finds the instances, for those who ask for it")
    add("--port", type=whole(0, 65535), default=8000, help="port of the page; 0 takes a free one")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; by default only programs on this machine can connect. With any other, such as "
        "0.0.0.0, everybody who reaches this machine can translate and see the models' sample pictures: there is no "
        "password and no encryption",
    )
    _add_context(parser.add_argument_group("device"))
    return parser.parse_args(argv)


def _train_parser(description: str) -> Parser:
    parser = Parser(description)
    _add_data(parser.add_argument_group("data"))
    _add_networks(parser.add_argument_group("networks"))
    _add_training(parser.add_argument_group("training"))
    _add_output(parser.add_argument_group("output"))
    _add_context(parser.add_argument_group("device"))
    return parser


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dataroot", default="datasets/jeans2skirt_ccp", help="data set folder with train{A,B} and train{A,B}_seg")
    add("--loadSizeW", type=SIDE, default=220, help="width to which pictures are resized before the crop")
    add("--loadSizeH", type=SIDE, default=330, help="height to which pictures are resized before the crop")
    add("--fineSizeW", type=SIDE, default=200, help="width of the random crop to train on, a multiple of 4")
    add("--fineSizeH", type=SIDE, default=300, help="height of the random crop to train on, a multiple of 4")
    add("--no-flip", action="store_true", help="do not mirror half of the pictures")
    add(
        "--ins-max",
        type=whole(0),
        default=4,
        help="use at most this many instances of a picture, the largest ones; 0 trains a plain CycleGAN, without masks",
    )
    add("--ins-per", type=whole(1), default=2, help="instances in one pass of the sequential mini-batch")
    add("--set-order", choices=("decreasing", "random"), default="decreasing", help="order of a picture's instances")


def _add_networks(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--ngf", type=whole(2, 4096), default=64, help="channels of the generators' first layer")
    add("--ndf", type=whole(1, 4096), default=64, help="channels of the discriminators' first layer")
    add("--n-blocks", type=whole(0, 100), default=9, help="residual blocks in each encoder")
    add("--n-layers-D", type=whole(1, 10), default=3, help="stride-2 layers of the discriminators' feature extractors")
    add("--norm", choices=("instance", "batch"), default="instance", help="normalization of activations")


def _add_training(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--batch-size", "-b", type=whole(1, 1024), default=1, help="pictures of each domain in one iteration")
    add("--max-epoch", "-e", type=whole(1), default=600, help="epochs to train; one sees the larger domain once")
    add("--max-iter", type=whole(1), default=None, help="stop after this many iterations, if that is sooner")
    add(
        "--lr-decay-start-epoch",
        type=whole(0),
        default=400,
        help="from here learning rates fall linearly to zero at --max-epoch",
    )
    add("--learning-rate_G", type=real(), default=2e-4, help="learning rate of the generators' Adam")
    add("--learning-rate_D", type=real(), default=2e-4, help="learning rate of the discriminators' Adam")
    add("--beta1", type=real(below=1), default=0.5, help="Adam's decay of the first moment")
    add("--beta2", type=real(below=1), default=0.999, help="Adam's decay of the second moment")
    add("--lambda-cyc", type=real(), default=10.0, help="weight of the cycle consistency loss")
    add("--lambda-idt", type=real(), default=10.0, help="weight of the identity mapping loss")
    add("--lambda-ctx", type=real(), default=10.0, help="weight of the context preserving loss")
    add(
        "--background",
        choices=BACKGROUNDS,
        default="keep",
        help=BACKGROUND_HELP,
    )
    add("--pool-size", type=whole(0), default=50, help="earlier translations kept to show to the discriminators")
    add(
        "--seed",
        type=whole(0),
        default=0,
        help="fixes weights, order, crops and flips; on a CPU the same run again gives the same bytes",
    )
    add("--pretrained", default=None, help="start from the parameters of this .h5 (of train.py or convert_pytorch.py)")
    add("--resume", action="store_true", help="go on with the run in --monitor-path; other arguments keep their values")


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--monitor-path", "-m", default="tmp.monitor", help="folder of the run: its page, checkpoints, samples, curves")
    add("--model-save-path", "-o", default=None, help="folder for params_NNNNNN.h5, where not --monitor-path")
    add("--log-step", type=whole(1), default=100, help="iterations that one line of the loss files averages over")
    add("--save-image-interval", type=whole(1), default=1, help="epochs between sample pictures")
    add("--save-interval", type=whole(1), default=10, help="epochs between checkpoints; the last 3 are kept")
    add(
        "--evaluate-interval",
        type=whole(0),
        default=None,
        help="epochs between evaluations on a few held-out pictures, the best model by which is kept; 0: none "
        "(default: as many epochs as have 200 iterations)",
    )
    add(
        "--tensorboard",
        action="store_true",
        help="losses, figures and samples also as event files for TensorBoard, in the run's folder; needs tensorboardX "
        "(requirements-tensorboard.txt)",
    )


def _add_context(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--context", "-c", choices=("auto", "cpu", "cudnn"), default="auto", help="auto takes a GPU where one works")
    add("--device-id", "-d", default="0", help="number of the GPU; train.py under mpirun takes one for each process")
    add(
        "--type-config",
        "-t",
        choices=("float", "half"),
        default="float",
        help="half: layers of generators and discriminators in half precision, for GPUs; all else remains in float",
    )
    add("--tf32", action="store_true", help="on a GPU: products of float numbers rounded to 10 bits, faster")
    add(
        "--cudnn-algorithm",
        choices=("heuristic", "fastest", "deterministic"),
        default="heuristic",
        help="on a GPU: how convolutions are computed; fastest tries all ways on each new shape, deterministic takes "
        "those that always give the same sums",
    )
    add(
        "--cpu-kernels",
        choices=("auto", "onednn", "nnabla"),
        default="auto",
        help="on a CPU: oneDNN is far faster than NNabla itself",
    )


def _add_model(add: Callable[..., argparse.Action]) -> None:
    add("--model", required=True, help="run folder of train.py, or a .h5 file")
    add(
        "--which",
        choices=("newest", "best"),
        default="newest",
        help="which model of a run folder: the newest, or the best by train.py's evaluations of held-out pictures",
    )


def _add_input(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    _add_model(add)
    add("--direction", choices=("AtoB", "BtoA"), default="AtoB", help="which domain into which")
    add("--dataroot", default=None, help="data set folder; translates PHASE{A,B} of it")
    add("--phase", default="test", help="which pictures of the data set: train, test, val, sample, ...")
    add("--image", default=None, help="one picture, or a folder of pictures")
    add("--output", default="results", help="folder for images, masks and index.html")
    add("--overwrite", action="store_true", help="replace pictures that are already in --output")


def _add_masks(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--masks",
        nargs="+",
        default=[],
        help="masks of the --image, a file for each instance; for a folder, the folder with NAME_{i}.png (default: "
        "FOLDER_seg). Or one file or folder of annotations: COCO JSON, LabelMe JSON, label maps (--mask-format labels)",
    )
    add(
        "--mask-format",
        choices=FORMATS,
        default="auto",
        help="the form of --masks: a file for each mask, a label map for each picture, COCO or LabelMe JSON; auto "
        "distinguishes JSON from masks",
    )
    add("--category", default=None, help="only instances of this category of the annotations (default: all)")
    add("--crowds", action="store_true", help="COCO: annotations with iscrowd are instances, as those of CVAT's brush")
    add(
        "--box",
        type=box,
        metavar="X0,Y0,X1,Y1",
        nargs="+",
        action="extend",
        default=[],
        help="a box drawn closely around each instance of the --image, in its pixels, in place of masks (--box=-5,... "
        "where a number is negative)",
    )
    add("--segmenter", default=None, help="find the instances with this model of segment.py, in place of masks")
    add(
        "--select",
        type=numbers,
        metavar="I,J,...",
        help="translate only the instances of these numbers, such as 0,2: those of mask files, or else from 0 in "
        "the order of boxes and annotations (a segmenter's: the largest first)",
    )
    add(
        "--keep-size",
        action="store_true",
        help="work on each group of instances by itself, cut out with its surroundings, and put the results into the "
        "picture at its own size; beyond a pixel of the network around them nothing is touched",
    )


def _add_translation(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--fineSizeW", type=whole(8, LARGEST_SIDE), default=None, help="width to work at (default: as trained)")
    add("--fineSizeH", type=whole(8, LARGEST_SIDE), default=None, help="height to work at (default: as trained)")
    add("--ins-per", type=whole(1), default=None, help="instances in one pass (default: as trained)")
    add("--ins-max", type=whole(1), default=None, help="translate only this many instances, the largest (default: all)")
    add("--set-order", choices=("decreasing", "random"), default=None, help="order of instances (default: as trained)")
    add("--seed", type=whole(0), default=0, help="for --set-order random")
    add(
        "--background",
        choices=BACKGROUNDS,
        default=None,
        help=f"{BACKGROUND_HELP} (default: as trained)",
    )


def _add_segmenter_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataroot", required=True, help="data set folder; its training pictures with masks are learned from")
    add("--output", default="segmenter.h5", help="file for the model; the .json beside it holds its scores")
    add("--overwrite", action="store_true", help="replace the model that is already in --output")
    add("--steps", type=whole(1), default=1500, help="training steps, of 8 pictures each; fewer are faster and worse")
    add("--seed", type=whole(0), default=0, help="fixes weights and augmentation; on a CPU the same model again")


def _add_segmentation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", default="segmenter.h5", help="file that `segment.py train` wrote")
    add("--dataroot", default=None, help="data set folder; masks are found for PHASE{A,B} of it")
    add("--phase", default="val", help="which pictures of the data set: val, test, ...")
    add("--image", default=None, help="a folder of pictures; their masks go into FOLDER_seg")
    add("--domain", choices=("A", "B"), default=None, help="domain of the instances to find (default: each its own)")
    add("--overwrite", action="store_true", help="predict again where masks were predicted before; other masks stay")


def _add_command(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=text)


def _resumed(parser: Parser, folder: str, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments in the args.json of the run in `folder`, changed by `argv` where that is allowed."""
    path = Path(folder) / "args.json"
    try:
        saved = read_json(path)
    except (OSError, ValueError):
        raise UserError(
            f"nothing to resume: {path} is not there or not readable; check --monitor-path, or leave out --resume"
        ) from None
    try:
        if not isinstance(saved, dict):
            raise UserError("it does not hold arguments")
        # runs of earlier versions had no such flag
        saved = {"background": "network", **saved}
        # the same checks as on the command line; the run may have been moved
        flags = parser.flags({name: v for name, v in saved.items() if name not in ("resume", "monitor_path")})
        before = parser.parse_args(flags)
    except UserError as error:
        raise UserError(f"{path} is not as train.py wrote it ({error}); restore the original") from None
    args = parser.parse_args([*flags, *argv])
    differing = [name for name in FIXED_ON_RESUME if getattr(args, name) != getattr(before, name)]
    if differing:
        changes = ", ".join(
            f"--{name.replace('_', '-')} {getattr(args, name)} (was {getattr(before, name)})" for name in differing
        )
        raise UserError(f"--resume cannot change {changes}; leave that out, or start again in another --monitor-path")
    return args


def _check_sizes(args: argparse.Namespace) -> None:
    least = smallest_size(Architecture(n_layers_D=args.n_layers_D))
    for side in "HW":
        fine = getattr(args, f"fineSize{side}")
        load = getattr(args, f"loadSize{side}")
        if fine % 4 or fine < least:
            near = max(least, (fine + 2) // 4 * 4)
            raise UserError(
                f"--fineSize{side} {fine} must be a multiple of 4 and at least {least}; the nearest is {near}"
            )
        if fine > load:
            raise UserError(f"--fineSize{side} {fine} is larger than --loadSize{side} {load}; the crop must fit in")
