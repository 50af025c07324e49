# SPDX-License-Identifier: Apache-2.0
"""Arguments of trainings that take seconds: sizes of pictures and networks."""

HEIGHT, WIDTH = 12, 16  # of the crops
SMALL = f"--loadSizeH 14 --loadSizeW 18 --fineSizeH {HEIGHT} --fineSizeW {WIDTH}".split()
SMALL += "--n-layers-D 1 --ngf 2 --ndf 2 --n-blocks 0".split()
