# SPDX-License-Identifier: Apache-2.0
"""Check every picture and mask of a data set, and report each fault and how to fix it.

    python datasets/check_dataset.py datasets/jeans2skirt_ccp
    python datasets/check_dataset.py my_data --json > findings.json

An *error* would make training use something wrongly, and training refuses it; a *warning* is used as it is, but may not
be meant; a *note* is read correctly here, but perhaps not elsewhere. The exit code is 1 if there are errors, else 0.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import begin_script, run_main

begin_script(__name__)

from common.command_line import Parser, whole
from data import checks


def main() -> int:
    """Run the command line; the exit code is 1 if the data set has errors."""
    parser = Parser(__doc__)
    parser.add_argument("dataroot", help="data set folder, with trainA, trainA_seg, trainB, trainB_seg and so on")
    parser.add_argument("--json", action="store_true", help="print all findings as JSON")
    parser.add_argument("--phase", default=None, help="check this phase only: train, test, ... (default: all)")
    parser.add_argument("--loadSizeH", type=whole(1), default=330, help="as for train.py; finds masks too thin for it")
    parser.add_argument("--loadSizeW", type=whole(1), default=220, help="as for train.py")
    parser.add_argument("--fineSizeH", type=whole(1), default=300, help="as for train.py; finds smaller pictures")
    parser.add_argument("--fineSizeW", type=whole(1), default=200, help="as for train.py")
    args = parser.parse_args()
    sizes = checks.Sizes((args.loadSizeH, args.loadSizeW), (args.fineSizeH, args.fineSizeW))
    report = checks.check(args.dataroot, sizes, [args.phase] if args.phase else [])
    if args.json:
        print(json.dumps(asdict(report), indent=1))
    else:
        print("\n".join([*report.lines(checks.SEVERITIES), report.summary()]))
    return 1 if report.of(checks.ERROR) else 0


if __name__ == "__main__":
    run_main(main)
