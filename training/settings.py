# SPDX-License-Identifier: Apache-2.0
"""The settings of a training run: the networks, the data, the losses and the optimizers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Tuple

from data.instances import mini_batches
from models import Architecture


@dataclass(frozen=True)
class Settings:
    """The numbers that train.py's command line gives, by which a model is trained; see `train.py --help`.

    Sizes are (height, width) in pixels: pictures are resized to `load_size` and cropped to `size`. `ins_per` are the
    instances of one pass of the sequential mini-batch.

    `ins_per` 0 is training without masks (`--ins-max 0`). The networks stay as they are and get one empty mask for
    each picture; the mask that G makes, the mask part of the L1 losses and the context preserving loss are dropped. So
    it trains with the losses of CycleGAN, though not with its architecture. There is no background then either, and
    `background` is "network".
    """

    architecture: Architecture
    load_size: Tuple[int, int]
    size: Tuple[int, int]
    flip: bool
    batch_size: int
    ins_max: int
    ins_per: int
    set_order: str
    background: str
    pool_size: int
    lambda_cyc: float
    lambda_idt: float
    lambda_ctx: float
    learning_rate_G: float
    learning_rate_D: float
    beta1: float
    beta2: float
    max_epoch: int
    lr_decay_start_epoch: int
    seed: int

    @staticmethod
    def from_args(args: argparse.Namespace) -> Settings:
        """The settings in the parsed command line of train.py."""
        return Settings(
            architecture=Architecture(args.ngf, args.ndf, args.n_blocks, args.n_layers_D, args.norm),
            load_size=(args.loadSizeH, args.loadSizeW),
            size=(args.fineSizeH, args.fineSizeW),
            flip=not args.no_flip,
            batch_size=args.batch_size,
            ins_max=args.ins_max,
            ins_per=args.ins_per if args.ins_max else 0,
            set_order=args.set_order,
            background=args.background if args.ins_max else "network",
            pool_size=args.pool_size,
            lambda_cyc=args.lambda_cyc,
            lambda_idt=args.lambda_idt,
            lambda_ctx=args.lambda_ctx,
            learning_rate_G=args.learning_rate_G,
            learning_rate_D=args.learning_rate_D,
            beta1=args.beta1,
            beta2=args.beta2,
            max_epoch=args.max_epoch,
            lr_decay_start_epoch=args.lr_decay_start_epoch,
            seed=args.seed,
        )

    @property
    def keeps_background(self) -> bool:
        """Return whether pictures stay as they are outside of their instances."""
        return self.background == "keep"

    @property
    def passes(self) -> int:
        """The passes of the sequential mini-batch that an iteration has at most."""
        return len(mini_batches(self.ins_max, self.ins_per))

    def learning_rate_factor(self, epoch: int) -> float:
        """The factor of both learning rates in `epoch` = 0, 1, ..., as in CycleGAN: constant, then falling linearly.

        It would reach zero in epoch `max_epoch`, the first that is not trained.
        """
        decay_start = self.lr_decay_start_epoch
        if self.max_epoch < decay_start:
            return 1.0
        return 1 - max(0, epoch + 1 - decay_start) / (self.max_epoch - decay_start + 1)
