# SPDX-License-Identifier: Apache-2.0
"""Saved models: `NAME.h5`, NNabla's own parameter format, and `NAME.json` beside it, which describes the networks."""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

import h5py
import nnabla as nn
import numpy as np

from common import files
from common.errors import UserError
from common.json_file import read_json
from models import BACKGROUNDS, LARGEST_SIDE, NETWORKS, Architecture
from weights.h5_reader import read_arrays

Config = Dict[str, Any]

BEST = "best.json"


def save_model(path: str | Path, parameters: Dict[str, np.ndarray], config: Config) -> None:
    """Write `path` (.h5) and the .json beside it, each whole or not at all; the .h5, which readers look for, last.

    `parameters` maps full names such as "gen_x2y/encoder_image/conv1/W" to float32 arrays; `nnabla.load_parameters`
    can read the file. `config` holds the fields of `Architecture` and whatever else is to be stored.
    """
    path = Path(path)
    files.write_text(path.with_suffix(".json"), json.dumps(config, indent=2, sort_keys=True) + "\n")
    # in memory first: on a full disk, HDF5 can end the process with a segmentation fault
    content = io.BytesIO()
    # "earliest" is the format that h5_reader.py reads, whatever the library's default becomes
    with h5py.File(content, "w", libver="earliest") as f:
        for index, (name, value) in enumerate(parameters.items()):
            data = f.create_dataset(name, data=np.asarray(value, np.float32))
            data.attrs["need_grad"] = name.rsplit("/", 1)[-1] not in ("u", "mean", "var")
            data.attrs["index"] = index
    with files.replacing(path) as part:
        part.write_bytes(content.getbuffer())


def find_model(path: str | Path, which: str = "newest") -> Path:
    """The .h5 file `path`, or a model of a run folder `path`: the newest `params_*.h5`, or the one in its best.json.

    `which` is "newest" or "best".

    Raises:
        UserError: where there is none.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no model at {path}; give a run folder (--monitor-path of train.py) or a .h5 file")
    if path.is_file():
        if which == "best":
            raise UserError(f"--which best is for a run folder, and {path} is a file; leave it out, or give the folder")
        return path
    if which == "best":
        return path / read_best(path)["file"]
    saved = files.numbered_files(path, "params", "h5")
    if not saved:
        raise UserError(f"{path} holds no params_*.h5; has the training saved a model yet? (--save-interval)")
    return saved[-1]


def best_path(folder: Path, iteration: int) -> Path:
    """The file for a model that is the best after `iteration` iterations."""
    return folder / f"best_{iteration:06d}.h5"


def write_best(folder: Path, iteration: int, facts: Dict[str, Any]) -> None:
    """Write best.json, which names the best model of a run, whose files are there already, and `facts` about it."""
    contents = {"file": best_path(folder, iteration).name, "iteration": iteration, **facts}
    files.write_text(folder / BEST, json.dumps(contents, indent=2) + "\n")


def read_best(folder: Path) -> Dict[str, Any]:
    """The contents of a run's best.json.

    Raises:
        UserError: where there is none, it is damaged, or the model that it names is missing.
    """
    path = folder / BEST
    if not path.exists():
        raise UserError(
            f"{folder} holds no {BEST}: the training has chosen no best model (--evaluate-interval of train.py); "
            "give --which newest"
        )
    try:
        best = read_json(path)
        if not re.fullmatch(r"best_[0-9]+\.h5", best["file"]):
            raise ValueError("its file is not a best_*.h5")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} cannot be used ({error}); give --which newest") from None
    if not (folder / best["file"]).is_file():
        raise UserError(f"{path} names {best['file']}, which is missing; give --which newest")
    return best


def load_model(path: str | Path) -> Tuple[Dict[str, np.ndarray], Config]:
    """Read a model's parameters, name to float32 array, and its .json.

    Raises:
        UserError: where either file is missing or damaged, or the .json does not describe the parameters.
    """
    path = Path(path)
    parameters = read_parameters(path)
    config_path = path.with_suffix(".json")
    try:
        config = read_json(config_path)
        _check_config(config, parameters)
    except (OSError, ValueError, MemoryError) as error:
        raise UserError(f"{config_path}, which describes {path.name}, cannot be used: {error}") from None
    return parameters, config


def read_parameters(path: str | Path) -> Dict[str, np.ndarray]:
    """Read all arrays of a .h5 file, by full name.

    Raises:
        UserError: where it is missing, cannot be read, or holds anything but arrays of 32-bit floats, together no
            larger than the file.
    """
    try:
        return read_arrays(path)
    except (OSError, ValueError, MemoryError) as error:
        raise UserError(f"{path} is not a readable .h5 model ({error}); give a file that train.py wrote") from None


def architecture_of(config: Config) -> Architecture:
    """The architecture that a model's .json describes; fields of networks that it does not hold keep their defaults.

    Raises:
        KeyError: where a field is missing.
    """
    values = {field.name: config[field.name] for field in fields(Architecture)}
    return Architecture(**{name: value for name, value in values.items() if value is not None})


def model_config(arch: Architecture, **more: Any) -> Config:
    """The contents of a model's .json: the architecture and `more`."""
    return {**asdict(arch), **more}


def set_parameters(values: Dict[str, np.ndarray], networks: Sequence[str], path: str | Path) -> None:
    """Copy `values` into the parameters of `networks`, which exist in NNabla's current scope.

    NNabla's own loader silently accepts a file with other names; here names and shapes must match exactly. `path` is
    for the messages.

    Raises:
        UserError: where a parameter is missing, unknown, of another shape, or not finite.
    """
    for network in networks:
        with nn.parameter_scope(network):
            variables = nn.get_parameters(grad_only=False)
        arrays = _of_network(values, network)
        missing = sorted(variables.keys() - arrays.keys())
        unknown = sorted(arrays.keys() - variables.keys())
        if missing or unknown:
            difference = f"lacks {missing[0]}" if missing else f"holds an unknown {unknown[0]}"
            raise UserError(f"{path} is a model of another kind: {network} {difference}")
        for name, variable in variables.items():
            array = arrays[name]
            if variable.shape != array.shape:
                raise UserError(
                    f"{path} does not fit: {network}/{name} is {array.shape}, not {variable.shape}; "
                    "use the --ngf, --ndf, --n-blocks and --n-layers-D that it was trained with"
                )
            if not np.isfinite(array).all():
                raise UserError(f"{path}: {network}/{name} holds NaN or infinity: the training diverged; give another")
            variable.d = array


def shown_architecture(parameters: Dict[str, np.ndarray], network: str) -> Dict[str, int]:
    """The architecture that names and shapes of a network's parameters show: "ngf" and "n_blocks" of a generator, "ndf"
    and "n_layers_D" of a discriminator.

    The shapes of the largest weights are checked, so that creating the network takes memory in proportion to them.

    Raises:
        ValueError: where the shapes contradict each other.
    """
    shapes = {name: np.shape(array) for name, array in _of_network(parameters, network).items()}
    is_generator = network.startswith("gen")
    first = "encoder_image" if is_generator else "feature_image"
    width, *_ = shapes.get(f"{first}/conv1/W") or (0,)
    if is_generator:
        blocks = [name for name in shapes if re.fullmatch(first + r"/block\d+/conv[12]/W", name)]
        expected = {name: (4 * width, 4 * width, 3, 3) for name in blocks}
        expected[f"{first}/conv3/W"] = (4 * width, 2 * width, 3, 3)
        shown = {"ngf": width, "n_blocks": len(blocks) // 2}
    else:
        layers = len([name for name in shapes if re.fullmatch(first + r"/conv\d+/W", name)])
        input_channels = 2 * width * min(2 ** (layers - 1), 8)
        output_channels = 2 * width * min(2**layers, 8)
        expected = {"classifier/conv1/W": (output_channels, input_channels, 4, 4)}
        shown = {"ndf": width, "n_layers_D": layers}
    for name, shape in expected.items():
        if not width or shapes.get(name) != shape:
            raise ValueError(f"{network}/{name} is {shapes.get(name, 'missing')}, not {shape}")
    return shown


def _of_network(arrays: Dict[str, np.ndarray], network: str) -> Dict[str, np.ndarray]:
    """The arrays of one network, by their names within it."""
    prefix = f"{network}/"
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _check_config(config: Any, parameters: Dict[str, np.ndarray]) -> None:
    """Raise ValueError unless `config` has all that translate.py needs, of the right types, and fits `parameters`."""
    needed = [field.name for field in fields(Architecture)] + ["networks", "ins_per", "set_order"]
    missing = [name for name in needed if name not in config] if isinstance(config, dict) else needed
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    networks = config["networks"]
    if not isinstance(networks, list) or not networks or not all(name in NETWORKS for name in networks):
        raise ValueError(f"its networks are not some of {', '.join(NETWORKS)}")
    for name, choices in (("norm", ("instance", "batch")), ("set_order", ("decreasing", "random"))):
        if config[name] not in choices:
            raise ValueError(f"its {name} is not one of {', '.join(choices)}")
    if config.get("background", "network") not in BACKGROUNDS:
        raise ValueError(f"its background is not one of {', '.join(BACKGROUNDS)}")
    for name, least in (("fineSizeH", 8), ("fineSizeW", 8), ("ins_per", 0)):
        value = config.get(name)
        if value is not None and (type(value) is not int or not least <= value <= LARGEST_SIDE):
            raise ValueError(f"its {name} is not a whole number from {least} to {LARGEST_SIDE}")
    shares = config.get("instance_share", {})
    if not isinstance(shares, dict) or not all(_is_share(share) for share in shares.values()):
        raise ValueError("its instance_share is not a share for each domain")
    for network in networks:
        for name, value in shown_architecture(parameters, network).items():
            if type(config[name]) is not int or config[name] != value:
                raise ValueError(f"its {name} is {config[name]!r:.40}, but {network} has {value}")


def _is_share(value: Any) -> bool:
    return value is None or type(value) is float and 0 < value <= 1
