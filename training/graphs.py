# SPDX-License-Identifier: Apache-2.0
"""The static graphs of training: what goes into a pass of the generators or a look of a discriminator, and its losses.

Each is made once for a number of pictures and masks, and then run again and again on other arrays.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

import nnabla as nn

from args import architecture, instances_per_pass
from backend import arrays, kernels
from losses import context_preserving_loss, lsgan_loss, set_l1_loss
from models import FROZEN, OTHER, discriminator, generator, generator_twice
from translation.sequence import MaskInput, MaskSet, MiniBatch


@dataclass
class GeneratorGraph:
    """One pass from one domain: its inputs, the translation, and the losses that train G."""

    x: nn.Variable
    a: MaskInput
    earlier: Optional[MaskInput]
    translated: Tuple[nn.Variable, nn.Variable]
    losses: Dict[str, nn.Variable]
    total: nn.Variable
    kept: List[nn.NdArray]

    def run(self, batch: MiniBatch, factor: float) -> None:
        """Translate, and add `factor` times the gradients of the total loss to those of both generators."""
        self.x.data = batch.pictures
        self.a.put(batch.masks)
        if self.earlier and batch.earlier:
            self.earlier.put(batch.earlier)
        forward_and_backward(self.total, factor, self.kept)


@dataclass
class DiscriminatorGraph:
    """One look of D at pictures with masks, against a target: half of its LSGAN loss."""

    y: nn.Variable
    b: MaskInput
    target: nn.Variable
    loss: nn.Variable
    kept: List[nn.NdArray]

    def run(self, pictures: nn.NdArray, masks: MaskSet, target: float, factor: float) -> None:
        """Judge, and add `factor` times the gradients of the loss to those of D."""
        self.y.data, self.target.data = pictures, arrays.constant(target)
        self.b.put(masks)
        forward_and_backward(self.loss, factor, self.kept)


def forward_and_backward(loss: nn.Variable, factor: float, kept: List[nn.NdArray]) -> None:
    """Run a graph in as little memory as it needs; `kept`, what NNabla leaves, is cleared for other graphs to use."""
    loss.forward(clear_no_need_grad=True)
    loss.backward(factor, clear_buffer=True)
    for array in kept:
        array.clear()


def generator_graph(args: argparse.Namespace, source: str, pictures: int, masks: int, earlier: int) -> GeneratorGraph:
    """The losses of one pass from domain `source` = x to y (and the mirror image); paper, equations 2 to 6.

    It is for so many pictures, masks, and masks that earlier passes gave.
    """
    arch, slots, size = architecture(args), instances_per_pass(args), (args.fineSizeH, args.fineSizeW)
    target, x, a_input = OTHER[source], nn.Variable((pictures, 3, *size)), MaskInput(pictures, masks, size)
    a, owner = a_input.masks, a_input.membership
    b_earlier = MaskInput(pictures, earlier, size) if earlier else None
    with nn.parameter_scope(f"gen_{source}2{target}"):
        y, b = generator(x, a, owner, arch)
    if not slots:
        # CycleGAN makes no masks: what the mask decoder says is not looked at
        b = a
    with nn.parameter_scope(f"gen_{target}2{source}"):
        reconstructed, identity = generator_twice((y, b), (x, a), owner, arch)
    with nn.parameter_scope(f"dis_{target}"):
        before = (b_earlier.masks, b_earlier.membership) if b_earlier else None
        score = discriminator(y, b, owner, arch, FROZEN, before)

    losses = {
        f"generator_loss_{target}": lsgan_loss(score, 1.0),
        f"reconstruction_loss_{source}": args.lambda_cyc * set_l1_loss((x, a), reconstructed, slots),
        f"identity_mapping_loss_{source}": args.lambda_idt * set_l1_loss((x, a), identity, slots),
    }
    if slots:
        context_loss = context_preserving_loss(x, a, y, b, owner)
        losses[f"context_preserving_loss_{source}"] = args.lambda_ctx * context_loss
    for variable in (y, b, *losses.values()):
        variable.persistent = True
    total = sum(losses.values())
    return GeneratorGraph(x, a_input, b_earlier, (y, b), losses, total, kernels.kept_arrays(total))


def discriminator_graph(args: argparse.Namespace, domain: str, pictures: int, masks: int) -> DiscriminatorGraph:
    """The discriminator of `domain` on so many pictures and masks."""
    size = (args.fineSizeH, args.fineSizeW)
    y, b, target = nn.Variable((pictures, 3, *size)), MaskInput(pictures, masks, size), nn.Variable((1, 1, 1, 1))
    with nn.parameter_scope(f"dis_{domain}"):
        score = discriminator(y, b.masks, b.membership, architecture(args))
    loss = 0.5 * lsgan_loss(score, target)
    loss.persistent = True
    return DiscriminatorGraph(y, b, target, loss, kernels.kept_arrays(loss))
