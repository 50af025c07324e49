# SPDX-License-Identifier: Apache-2.0
"""Convert networks saved by the InstaGAN authors' PyTorch code into a model for translate.py and train.py:

    python convert_pytorch.py --source checkpoints/shp2gir_coco_instagan --output model.h5
    python convert_pytorch.py --source checkpoints/shp2gir_coco_instagan --epoch 200 --output model.h5 \\
        --fineSizeH 200 --fineSizeW 200

The folder holds EPOCH_net_G_A.pth (A to B), EPOCH_net_G_B.pth (B to A) and, to continue training, also
EPOCH_net_D_A.pth and EPOCH_net_D_B.pth. PyTorch is not needed, and no code in the files is ever run.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

import numpy as np

from common.command_line import Parser, whole
from weights.model_file import Config, save_model, shown_architecture
from weights.pth_reader import read_state_dict

# the authors' D_A judges pictures of domain B, which is y here
NETWORKS = {"G_A": "gen_x2y", "G_B": "gen_y2x", "D_A": "dis_y", "D_B": "dis_x"}

# left out: every power iteration computes v from u, and instance normalization has no running statistics since
# PyTorch 0.4
IGNORED = (".weight_v", ".running_mean", ".running_var", ".num_batches_tracked")

# by the authors' name of a parameter: our name, and its shape in their file
Layers = Dict[str, Tuple[str, Tuple[int, ...]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Convert as the command line says; print what was read, and the command to type next."""
    args = _parse(argv)
    output = Path(args.output)
    _check_output(output, args.overwrite)
    parameters: Dict[str, np.ndarray] = {}
    for network, path in find_networks(Path(args.source), args.epoch).items():
        converted = convert_network(network, read_state_dict(path), path)
        parameters.update(converted)
        count = sum(value.size for name, value in converted.items() if not name.endswith("/u"))
        print(f"{path.name}: {NETWORKS[network]}, {count:,} parameters")
    config = _config(parameters, args.fineSizeH, args.fineSizeW, args.ins_per)
    try:
        save_model(output, parameters, config)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written ({error.strerror or error}); choose another") from None
    widths = f"ngf {config['ngf']}"
    if config["ndf"]:
        widths += f", ndf {config['ndf']}"
    print(f"{widths}, n_blocks {config['n_blocks']}: {_list(config['networks'])}")
    print(f"wrote {output} and {output.with_suffix('.json').name}; next:\n    {_next_command(output, config)}")
    return 0


def find_networks(source: Path, epoch: str) -> Dict[str, Path]:
    """The files of `epoch` in the folder `source`, by "G_A" and so on: one or both generators, or all four networks.

    Raises:
        UserError: where there is no generator, or only one of the other three is missing.
    """
    if not source.is_dir():
        raise UserError(f"--source {source} is not a folder; give the one with {epoch}_net_G_A.pth in it")
    paths = {name: source / f"{epoch}_net_{name}.pth" for name in NETWORKS}
    existing = {name: path for name, path in paths.items() if path.exists()}
    if not {"G_A", "G_B"} & existing.keys():
        epochs = sorted({path.name.split("_net_G_")[0] for path in source.glob("*_net_G_[AB].pth")}, key=_by_number)
        advice = "give the folder that has them"
        if epochs:
            advice = f"those of {_list(epochs)} are: add --epoch {epochs[-1]}"
        raise UserError(f"neither {epoch}_net_G_A.pth nor {epoch}_net_G_B.pth is in {source}; {advice}")
    if {"D_A", "D_B"} & existing.keys() and len(existing) < 4:
        absent = _list([paths[name].name for name in NETWORKS if name not in existing])
        raise UserError(
            f"{source} has a discriminator but not {absent}: training needs all four networks, translating only a "
            "generator; add what is missing, or move the discriminators elsewhere"
        )
    return existing


def convert_network(network: str, state: Dict[str, np.ndarray], path: Path) -> Dict[str, np.ndarray]:
    """Rename one network's parameters and convert them to float32; `u` becomes (1, channels).

    `network` is "G_A", "G_B", "D_A" or "D_B", `state` its state dict, `path` its file, for messages.

    Raises:
        UserError: where a parameter is missing, unknown, of another shape, or not finite.
    """
    state = {name: value for name, value in state.items() if not name.endswith(IGNORED)}
    layers = _layers_of(network, state, path)
    _check_names(state, layers, path)
    parameters = {}
    for theirs, (ours, shape) in layers.items():
        value = state[theirs]
        if value.shape != shape:
            raise UserError(
                f"{path}: {theirs} is {value.shape} where {shape} belongs; give a network of the authors' code"
            )
        if value.dtype.kind != "f":
            raise UserError(f"{path}: {theirs} holds {value.dtype} numbers; give a network with floating-point weights")
        # a double beyond float32's range becomes infinite, which is reported below
        with np.errstate(over="ignore"):
            value = value.astype(np.float32)
        if not np.isfinite(value).all():
            raise UserError(f"{path}: {theirs} holds NaN or infinity: the training diverged; give an earlier --epoch")
        parameters[f"{NETWORKS[network]}/{ours}"] = value.reshape(1, -1) if ours.endswith("/u") else value
    return parameters


def generator_layers(ngf: int, n_blocks: int) -> Layers:
    """All parameters of a generator of width `ngf` with `n_blocks` residual blocks in each encoder."""
    # the image decoder takes features of the picture and of all masks together, the mask decoder also of its own mask
    return {
        **_encoder_and_decoder("img", "image", 3, 8 * ngf, ngf, n_blocks),
        **_encoder_and_decoder("seg", "mask", 1, 12 * ngf, ngf, n_blocks),
    }


def discriminator_layers(ndf: int) -> Layers:
    """All parameters of a discriminator of width `ndf`, and the vectors `u` of its spectral normalization."""
    layers: Layers = {}
    for theirs, ours, channels in (("img", "image", 3), ("seg", "mask", 1)):
        source = f"feature_{theirs}"
        target = f"feature_{ours}"
        layers.update(_spectral(f"{source}.0", f"{target}/conv1", (ndf, channels, 4, 4)))
        layers.update(_spectral(f"{source}.2", f"{target}/conv2", (2 * ndf, ndf, 4, 4)))
        layers.update(_spectral(f"{source}.5", f"{target}/conv3", (4 * ndf, 2 * ndf, 4, 4)))
    layers.update(_spectral("classifier.0", "classifier/conv1", (16 * ndf, 8 * ndf, 4, 4)))
    layers.update(_spectral("classifier.3", "classifier/conv2", (1, 16 * ndf, 4, 4)))
    return layers


def _encoder_and_decoder(theirs: str, ours: str, channels: int, features: int, ngf: int, n_blocks: int) -> Layers:
    """The encoder and the decoder of images or of masks, with `channels`; the decoder takes `features` channels."""
    layers: Layers = {}
    source = f"encoder_{theirs}"
    target = f"encoder_{ours}"
    layers.update(_convolution(f"{source}.1", f"{target}/conv1", (ngf, channels, 7, 7)))
    layers.update(_convolution(f"{source}.4", f"{target}/conv2", (2 * ngf, ngf, 3, 3)))
    layers.update(_convolution(f"{source}.7", f"{target}/conv3", (4 * ngf, 2 * ngf, 3, 3)))
    for k in range(n_blocks):
        block = f"{source}.{10 + k}.conv_block"
        layers.update(_convolution(f"{block}.1", f"{target}/block{k + 1}/conv1", (4 * ngf, 4 * ngf, 3, 3)))
        layers.update(_convolution(f"{block}.5", f"{target}/block{k + 1}/conv2", (4 * ngf, 4 * ngf, 3, 3)))
    source = f"decoder_{theirs}"
    target = f"decoder_{ours}"
    layers.update(_deconvolution(f"{source}.0", f"{target}/deconv1", features))
    layers.update(_deconvolution(f"{source}.3", f"{target}/deconv2", features // 2))
    layers.update(_convolution(f"{source}.7", f"{target}/conv", (channels, features // 4, 7, 7)))
    return layers


def _convolution(theirs: str, ours: str, shape: Tuple[int, int, int, int]) -> Layers:
    return {f"{theirs}.weight": (f"{ours}/W", shape), f"{theirs}.bias": (f"{ours}/b", shape[:1])}


def _deconvolution(theirs: str, ours: str, channels: int) -> Layers:
    """A transposed convolution, which halves the channels; its weight has the input channels first."""
    half = channels // 2
    return {f"{theirs}.weight": (f"{ours}/W", (channels, half, 3, 3)), f"{theirs}.bias": (f"{ours}/b", (half,))}


def _spectral(theirs: str, ours: str, shape: Tuple[int, int, int, int]) -> Layers:
    module = f"{theirs}.module"
    return {
        f"{module}.weight_bar": (f"{ours}/W", shape),
        f"{module}.bias": (f"{ours}/b", shape[:1]),
        f"{module}.weight_u": (f"{ours}/u", shape[:1]),
    }


def _layers_of(network: str, state: Dict[str, np.ndarray], path: Path) -> Layers:
    """The layers that the file should hold, judging by the width of its first layer and its residual blocks."""
    is_generator = network.startswith("G")
    first = "encoder_img.1.weight" if is_generator else "feature_img.0.module.weight_bar"
    if first not in state or state[first].ndim != 4:
        kind = "generator" if is_generator else "discriminator"
        raise UserError(f"{path} is not a {kind} of InstaGAN: its first layer, {first}, is missing; give one that is")
    width = len(state[first])
    if not is_generator:
        return discriminator_layers(width)
    n_blocks = 0
    while f"encoder_img.{10 + n_blocks}.conv_block.1.weight" in state:
        n_blocks += 1
    return generator_layers(width, n_blocks)


def _check_names(state: Dict[str, np.ndarray], layers: Layers, path: Path) -> None:
    missing = [name for name in layers if name not in state]
    unknown = [name for name in state if name not in layers]
    problems: List[str] = []
    if missing:
        problems.append(f"{_list(missing)} missing")
    if unknown:
        problems.append(f"{_list(unknown)} not known")
    if problems:
        raise UserError(
            f"{path}: {', '.join(problems)}; give a network of the authors' code with its default settings: "
            "instance normalization, no dropout, three layers in the discriminator"
        )


def _config(parameters: Dict[str, np.ndarray], height: int | None, width: int | None, ins_per: int) -> Config:
    """The model's .json: widths and blocks as the parameters show them, and the arguments of the command line."""
    networks = sorted({name.split("/")[0] for name in parameters})
    architectures = {network: shown_architecture(parameters, network) for network in networks}
    common = {}
    for name in ("ngf", "ndf", "n_blocks", "n_layers_D"):
        values = {network: shown[name] for network, shown in architectures.items() if name in shown}
        common[name] = _common_value(name, values)
    return {
        **common,
        "norm": "instance",
        "fineSizeH": height,
        "fineSizeW": width,
        "ins_per": ins_per,
        "ins_max": 4,
        "set_order": "decreasing",
        "iteration": None,
        "networks": networks,
    }


def _common_value(name: str, values: Dict[str, int]) -> int | None:
    """The one value that all networks have; None where there is no network."""
    if len(set(values.values())) > 1:
        differing = _list([f"{value} in {network}" for network, value in values.items()])
        raise UserError(
            f"the networks are of different trainings ({name}: {differing}); give a folder with those of one"
        )
    return next(iter(values.values()), None)


def _next_command(output: Path, config: Config) -> str:
    direction = "AtoB" if "gen_x2y" in config["networks"] else "BtoA"
    size = "" if config["fineSizeH"] else " --fineSizeH HEIGHT --fineSizeW WIDTH"
    return (
        f"python translate.py --model {shlex.quote(str(output))} --image photo.jpg --masks photo_0.png "
        f"--direction {direction} --output results{size}"
    )


def _list(names: Sequence[str]) -> str:
    """Names for a message: all of a few, the first few of many."""
    first = ", ".join(names[:4])
    return first if len(names) <= 4 else f"{first} and {len(names) - 4} more"


def _by_number(epoch: str) -> Tuple[int, str]:
    """A key that sorts epochs by number, and words such as `latest` last."""
    return (int(epoch), "") if epoch.isdecimal() else (sys.maxsize, epoch)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--source", required=True, metavar="FOLDER", help="the folder with EPOCH_net_G_A.pth and so on")
    parser.add_argument("--output", required=True, metavar="FILE.h5", help="the model; FILE.json is written beside it")
    parser.add_argument("--epoch", default="latest", help="which of the saved networks")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.h5 and FILE.json if they exist")
    parser.add_argument(
        "--fineSizeH",
        type=whole(1),
        metavar="H",
        help="the height that the networks were trained at, kept for translate.py",
    )
    parser.add_argument("--fineSizeW", type=whole(1), metavar="W", help="and the width")
    parser.add_argument(
        "--ins-per",
        type=whole(1),
        default=2,
        metavar="N",
        help="instances translated at a time; 2 is as in the paper",
    )
    args = parser.parse_args(argv)
    if (args.fineSizeH is None) != (args.fineSizeW is None):
        raise UserError("--fineSizeH and --fineSizeW go together; give both, or neither and both to translate.py")
    return args


def _check_output(output: Path, overwrite: bool) -> None:
    if output.suffix != ".h5":
        raise UserError(f"--output {output} does not end in .h5; give a name such as model.h5")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}; make it first (mkdir -p)")
    for path in (output, output.with_suffix(".json")):
        if path.is_dir():
            raise UserError(f"{path} is a folder; choose another --output")
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists; choose another --output, or add --overwrite to replace it")


if __name__ == "__main__":
    run_main(main)
