# SPDX-License-Identifier: Apache-2.0
"""Saved models: `NAME.h5`, NNabla's own parameter format, and `NAME.json` beside it with what it takes to use them."""

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
from models import LARGEST_SIDE, NETWORKS, Architecture
from weights.h5_reader import read_arrays

Config = Dict[str, Any]


def save_model(path: str | Path, parameters: Dict[str, np.ndarray], config: Config) -> None:
    """Write `path` (.h5) and the .json beside it, each whole or not at all; the .h5, which readers look for, last.

    `parameters` maps full names such as "gen_x2y/encoder_image/conv1/W" to float32 arrays; the file is what
    `nnabla.load_parameters` reads. `config` holds the fields of `Architecture` and whatever else is to be kept.
    """
    path = Path(path)
    files.write_text(path.with_suffix(".json"), json.dumps(config, indent=2, sort_keys=True) + "\n")
    # in memory first: where a disk is full, HDF5 can end the process with a segmentation fault
    content = io.BytesIO()
    # "earliest" is the format that h5_reader.py reads, whatever the library's own choice may become
    with h5py.File(content, "w", libver="earliest") as f:
        for index, (name, value) in enumerate(parameters.items()):
            data = f.create_dataset(name, data=np.asarray(value, np.float32))
            data.attrs["need_grad"] = name.rsplit("/", 1)[-1] not in ("u", "mean", "var")
            data.attrs["index"] = index
    with files.replacing(path) as part:
        part.write_bytes(content.getbuffer())


def find_model(path: str | Path) -> Path:
    """The .h5 file that `path` means: itself, or the newest `params_*.h5` of a run folder.

    Raises:
        UserError: where there is none.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no model at {path}; give a run folder (--monitor-path of train.py) or a .h5 file")
    if path.is_file():
        return path
    saved = files.numbered_files(path, "params", "h5")
    if not saved:
        raise UserError(f"{path} holds no params_*.h5; has the training saved a model yet? (--save-interval)")
    return saved[-1]


def load_model(path: str | Path) -> Tuple[Dict[str, np.ndarray], Config]:
    """Read a model's parameters, name to float32 array, and its .json.

    Raises:
        UserError: where either file is missing or is not what it should be.
    """
    path = Path(path)
    parameters = read_parameters(path)
    config_path = path.with_suffix(".json")
    try:
        config = read_json(config_path)
        _check_config(config, parameters)
    except (OSError, ValueError, MemoryError) as error:
        raise UserError(f"{config_path}, which says how {path.name} is built, cannot be used: {error}") from None
    return parameters, config


def read_parameters(path: str | Path) -> Dict[str, np.ndarray]:
    """All arrays of a .h5 file by full name.

    Raises:
        UserError: where it is missing, cannot be read, or holds anything but arrays of 32-bit floats, as long together
            as the file at most.
    """
    try:
        return read_arrays(path)
    except (OSError, ValueError, MemoryError) as error:
        raise UserError(f"{path} is not a readable .h5 model ({error}); give a file that train.py wrote") from None


def architecture_of(config: Config) -> Architecture:
    """The architecture a model's .json describes; widths of networks that it does not hold are left at 64.

    Raises:
        KeyError: where a field is missing.
    """
    given = {f.name: config[f.name] for f in fields(Architecture)}
    return Architecture(**{name: value for name, value in given.items() if value is not None})


def set_parameters(values: Dict[str, np.ndarray], networks: Sequence[str], path: str | Path) -> None:
    """Put `values` into the parameters of `networks`, which exist in NNabla's current scope.

    NNabla's own loader takes a file with other names without a word; here names and shapes must agree exactly.
    `path` is for the messages.

    Raises:
        UserError: where a parameter is missing, unknown or of another shape.
    """
    for network in networks:
        with nn.parameter_scope(network):
            own = nn.get_parameters(grad_only=False)
        given = {name[len(network) + 1 :]: v for name, v in values.items() if name.startswith(network + "/")}
        missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        if missing or unknown:
            what = f"lacks {missing[0]}" if missing else f"holds an unknown {unknown[0]}"
            raise UserError(f"{path} is a model of another kind: {network} {what}")
        for name, variable in own.items():
            if variable.shape != given[name].shape:
                raise UserError(
                    f"{path} does not fit: {network}/{name} is {given[name].shape}, not {variable.shape}; "
                    "use the --ngf, --ndf, --n-blocks and --n-layers-D that it was trained with"
                )
            if not np.isfinite(given[name]).all():
                raise UserError(f"{path}: {network}/{name} holds NaN or infinity: the training diverged; give another")
            variable.d = given[name]


def shown_architecture(parameters: Dict[str, np.ndarray], network: str) -> Dict[str, int]:
    """What the names and shapes of a network's parameters show: "ngf" and "n_blocks", or "ndf" and "n_layers_D".

    The largest weights are looked at too, so that creating such a network takes memory in proportion to them.

    Raises:
        ValueError: where these contradict each other.
    """
    shapes = {name[len(network) + 1 :]: np.shape(v) for name, v in parameters.items() if name.startswith(network + "/")}
    first = "encoder_image" if network.startswith("gen") else "feature_image"
    width, *_ = shapes.get(f"{first}/conv1/W") or (0,)
    if network.startswith("gen"):
        blocks = [name for name in shapes if re.fullmatch(first + r"/block\d+/conv[12]/W", name)]
        expected = {name: (4 * width, 4 * width, 3, 3) for name in blocks}
        expected[f"{first}/conv3/W"] = (4 * width, 2 * width, 3, 3)
        shown = {"ngf": width, "n_blocks": len(blocks) // 2}
    else:
        layers = sum(re.fullmatch(first + r"/conv\d+/W", name) is not None for name in shapes)
        into, out = (2 * width * min(2**i, 8) for i in (layers - 1, layers))
        expected = {"classifier/conv1/W": (out, into, 4, 4)}
        shown = {"ndf": width, "n_layers_D": layers}
    for name, shape in expected.items():
        if not width or shapes.get(name) != shape:
            raise ValueError(f"{network}/{name} is {shapes.get(name, 'missing')}, not {shape}")
    return shown


def _check_config(config: Any, parameters: Dict[str, np.ndarray]) -> None:
    """Raise ValueError unless `config` has what translate.py needs, in its right type, and describes `parameters`."""
    needed = [f.name for f in fields(Architecture)] + ["networks", "ins_per", "set_order"]
    missing = [name for name in needed if name not in config] if isinstance(config, dict) else needed
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    networks = config["networks"]
    if not isinstance(networks, list) or not networks or not all(name in NETWORKS for name in networks):
        raise ValueError(f"its networks are not some of {', '.join(NETWORKS)}")
    for name, choices in (("norm", ("instance", "batch")), ("set_order", ("decreasing", "random"))):
        if config[name] not in choices:
            raise ValueError(f"its {name} is not one of {', '.join(choices)}")
    for name, least in (("fineSizeH", 8), ("fineSizeW", 8), ("ins_per", 0)):
        value = config.get(name)
        if value is not None and (type(value) is not int or not least <= value <= LARGEST_SIDE):
            raise ValueError(f"its {name} is not a whole number from {least} to {LARGEST_SIDE}")
    shares = config.get("instance_share", {})
    if not isinstance(shares, dict) or not all(s is None or type(s) is float and 0 < s <= 1 for s in shares.values()):
        raise ValueError("its instance_share is not a share for each domain")
    for network in networks:
        for name, value in shown_architecture(parameters, network).items():
            if type(config[name]) is not int or config[name] != value:
                raise ValueError(f"its {name} is {config[name]!r:.40}, but {network} has {value}")


def model_config(arch: Architecture, **more: Any) -> Config:
    """What goes into a model's .json: the architecture and `more`."""
    return {**asdict(arch), **more}
