# SPDX-License-Identifier: Apache-2.0
"""Write one generator of a trained model as a file for programs that have no NNabla.

python export.py --model runs/shapes --direction AtoB --output model.onnx
python export.py --model runs/shapes --direction BtoA --format nnp --output model.nnp

An ONNX file takes a picture of any size and any number of masks, an NNP file those of the training. docs/deploying.md
says what the inputs and outputs are, and examples/onnx_translate.py uses an ONNX file. That format needs one more
package: pip install -r requirements-export.txt
"""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

from args import export_args
from common import files
from exporting.nnp import write_nnp
from exporting.trained_generator import TrainedGenerator, trained_generator
from translation.translator import load_translator


def main() -> None:
    """Run the command line."""
    args = export_args(__doc__)
    output = Path(args.output)
    check_output(output, args.overwrite)
    if args.format == "onnx":
        check_onnx()
    loaded = load_translator(
        args.model, args.direction, args.fineSizeH, args.fineSizeW, args.ins_per, args.background, args.which
    )
    generator = trained_generator(loaded, args.direction)
    try:
        with files.replacing(output) as part:
            if args.format == "onnx":
                write_onnx(part, generator, args.type_config == "half")
            else:
                write_nnp(part, generator)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written ({error.strerror or error}); choose another") from None
    print(f"wrote {output}, {output.stat().st_size / 1e6:.1f} MB: {contents(generator, args.format)}")


def check_output(output: Path, overwrite: bool) -> None:
    """Raise UserError where the output cannot be a new file, or would replace one that it should not."""
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}; make it first (mkdir -p)")
    if output.is_dir():
        raise UserError(f"{output} is a folder; choose another --output")
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists; choose another --output, or add --overwrite to replace it")


def check_onnx() -> None:
    """Raise UserError where the package onnx is missing."""
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("--format onnx needs the package onnx; pip install -r requirements-export.txt") from None


def write_onnx(path: Path, generator: TrainedGenerator, half: bool) -> None:
    """Write the ONNX file of a generator."""
    # it can be imported only with the package onnx
    from exporting.onnx_generator import onnx_model

    path.write_bytes(onnx_model(generator, half).SerializeToString())


def contents(generator: TrainedGenerator, format_: str) -> str:
    """A few words on what a file takes."""
    if format_ == "onnx":
        return "one picture of any size that is a multiple of 4, with any number of masks"
    height, width = generator.size
    plural = "" if generator.masks == 1 else "s"
    return f"one picture of {height}x{width} (height x width), with {generator.masks} mask{plural}"


if __name__ == "__main__":
    run_main(main)
