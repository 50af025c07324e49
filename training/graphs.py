# SPDX-License-Identifier: Apache-2.0
"""The static graphs of training: a pass of the generators and a pass of a discriminator, with their losses.

Each is built once for a number of pictures and masks, and then run again and again on other arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

import nnabla as nn

from backend import arrays, kernels
from losses import context_preserving_loss, lsgan_loss, set_l1_loss
from models import FROZEN, OTHER, discriminator, generator, generator_twice
from training.settings import Settings
from translation.sequence import Examples, MaskInput, MiniBatch


@dataclass
class GeneratorGraph:
    """One pass from one domain: its inputs, the translation (y', b'), and the losses that train both generators."""

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
    """One pass of D over pictures with masks, with half of the LSGAN loss against a target."""

    y: nn.Variable
    b: MaskInput
    target: nn.Variable
    loss: nn.Variable
    kept: List[nn.NdArray]

    def run(self, examples: Examples, target: float, factor: float) -> None:
        """Score, and add `factor` times the gradients of the loss to those of D."""
        self.y.data = examples.pictures
        self.b.put(examples.masks)
        self.target.data = arrays.constant(target)
        forward_and_backward(self.loss, factor, self.kept)


def generator_graph(settings: Settings, source: str, pictures: int, masks: int, earlier: int) -> GeneratorGraph:
    """The losses of one pass from domain `source` = x to y (and the mirror image); paper, equations 2 to 6.

    It is for a number of pictures, of their masks, and of masks from earlier passes.
    """
    arch = settings.architecture
    slots = settings.ins_per
    target = OTHER[source]
    x = nn.Variable((pictures, 3, *settings.size))
    a_input = MaskInput(pictures, masks, settings.size)
    a = a_input.masks
    owner = a_input.membership
    b_earlier = MaskInput(pictures, earlier, settings.size) if earlier else None

    # (y', b') = G(x, a)
    with nn.parameter_scope(f"gen_{source}2{target}"):
        y, b = generator(x, a, owner, arch)
    if not slots:
        # CycleGAN has no masks: the mask decoder's output is not used
        b = a
    # the way back, F(y', b'), and F(x, a), which should change nothing
    with nn.parameter_scope(f"gen_{target}2{source}"):
        reconstructed, identity = generator_twice((y, b), (x, a), owner, arch)
    # D sees the masks of all passes so far
    with nn.parameter_scope(f"dis_{target}"):
        before = (b_earlier.masks, b_earlier.membership) if b_earlier else None
        score = discriminator(y, b, owner, arch, FROZEN, before)

    losses = {
        f"generator_loss_{target}": lsgan_loss(score, 1.0),
        f"reconstruction_loss_{source}": settings.lambda_cyc * set_l1_loss((x, a), reconstructed, slots),
        f"identity_mapping_loss_{source}": settings.lambda_idt * set_l1_loss((x, a), identity, slots),
    }
    if slots:
        context_loss = context_preserving_loss(x, a, y, b, owner)
        losses[f"context_preserving_loss_{source}"] = settings.lambda_ctx * context_loss
    for variable in (y, b, *losses.values()):
        variable.persistent = True
    total = sum(losses.values())
    return GeneratorGraph(x, a_input, b_earlier, (y, b), losses, total, kernels.kept_arrays(total))


def discriminator_graph(settings: Settings, domain: str, pictures: int, masks: int) -> DiscriminatorGraph:
    """Half of the LSGAN loss of the discriminator of `domain` for a number of pictures and masks (equation 2)."""
    y = nn.Variable((pictures, 3, *settings.size))
    b = MaskInput(pictures, masks, settings.size)
    target = nn.Variable((1, 1, 1, 1))
    with nn.parameter_scope(f"dis_{domain}"):
        score = discriminator(y, b.masks, b.membership, settings.architecture)
    loss = 0.5 * lsgan_loss(score, target)
    loss.persistent = True
    return DiscriminatorGraph(y, b, target, loss, kernels.kept_arrays(loss))


def forward_and_backward(loss: nn.Variable, factor: float, kept: List[nn.NdArray]) -> None:
    """Run a graph in as little memory as it needs; `kept`, which NNabla does not free, is cleared for other graphs."""
    loss.forward(clear_no_need_grad=True)
    loss.backward(factor, clear_buffer=True)
    for array in kept:
        array.clear()
