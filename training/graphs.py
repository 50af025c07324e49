# SPDX-License-Identifier: Apache-2.0
"""The static graphs of training: a pass of the generators and a pass of a discriminator, with their losses.

Each is built once for a number of pictures and masks, and then run again and again on other arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

import nnabla as nn

from backend import arrays, kernels
from losses import context_preserving_loss, lsgan_loss, set_l1_loss, vacated_region_loss
from models import FROZEN, OTHER, discriminator, generator, generator_on_two_batches
from training.settings import Settings
from translation.sequence import JudgedPictures, MaskInput, MiniBatch


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
    """One pass of D, with half of the LSGAN loss against a label: 1 for real pictures, 0 for fakes."""

    y: nn.Variable
    b: MaskInput
    label: nn.Variable
    loss: nn.Variable
    kept: List[nn.NdArray]

    def run(self, judged: JudgedPictures, label: float, factor: float) -> None:
        """Score, and add `factor` times the gradients of the loss to those of D."""
        self.y.data = judged.pictures
        self.b.put(judged.masks)
        self.label.data = arrays.constant(label)
        forward_and_backward(self.loss, factor, self.kept)


def build_generator_graph(
    settings: Settings, source: str, n_pictures: int, n_masks: int, n_earlier: int
) -> GeneratorGraph:
    """The losses of one pass from domain `source` = x to y (and the mirror image): equations 2 to 6 of the paper.

    For several passes it is their sequential form (section 2.3): the adversarial loss on y'_m with b'_1, ..., b'_m, the
    others on (x_m, a_m) and (y'_m, b'_m). The numbers are those of pictures, of their masks, and of masks from earlier
    passes.

    With `--background keep` each call of G puts what it paints into the picture that it is given. Then there is nothing
    for the context preserving loss, and a loss on the regions that instances leave takes its place and its name.
    """
    arch = settings.architecture
    keep = settings.keeps_background
    slots = settings.ins_per
    target = OTHER[source]
    x = nn.Variable((n_pictures, 3, *settings.size))
    a_input = MaskInput(n_pictures, n_masks, settings.size)
    a = a_input.masks
    membership = a_input.membership
    earlier_input = MaskInput(n_pictures, n_earlier, settings.size) if n_earlier else None
    earlier = (earlier_input.masks, earlier_input.membership) if earlier_input else None

    # (y', b') = G_XY(x, a)
    with nn.parameter_scope(f"gen_{source}2{target}"):
        y, b = generator(x, a, membership, arch, keep_background=keep)
    if not slots:
        # without masks the mask decoder's output is not used
        b = a
    # the way back, G_YX(y', b'), and G_YX(x, a), which should change nothing
    with nn.parameter_scope(f"gen_{target}2{source}"):
        reconstructed, identity = generator_on_two_batches((y, b), (x, a), membership, arch, keep)
    # D_Y sees the masks of all passes so far; gradients reach y' and b', but not the masks of earlier passes
    with nn.parameter_scope(f"dis_{target}"):
        score = discriminator(y, b, membership, arch, FROZEN, earlier)

    losses = {
        f"generator_loss_{target}": lsgan_loss(score, 1.0),
        f"reconstruction_loss_{source}": settings.lambda_cyc * set_l1_loss((x, a), reconstructed, slots),
        f"identity_mapping_loss_{source}": settings.lambda_idt * set_l1_loss((x, a), identity, slots),
    }
    if slots:
        context_loss = vacated_region_loss if keep else context_preserving_loss
        losses[f"context_preserving_loss_{source}"] = settings.lambda_ctx * context_loss(x, a, y, b, membership)
    # equation 6: the half of it that starts in `source`; both halves add to the same gradients before one step of G
    total = sum(losses.values())
    # these are read after the backward pass, which clears all other buffers
    for variable in (y, b, *losses.values()):
        variable.persistent = True
    return GeneratorGraph(x, a_input, earlier_input, (y, b), losses, total, kernels.kept_arrays(total))


def build_discriminator_graph(settings: Settings, domain: str, n_pictures: int, n_masks: int) -> DiscriminatorGraph:
    """Half of the LSGAN loss of the discriminator of `domain` for a number of pictures and masks (equation 2)."""
    y = nn.Variable((n_pictures, 3, *settings.size))
    b = MaskInput(n_pictures, n_masks, settings.size)
    label = nn.Variable((1, 1, 1, 1))
    with nn.parameter_scope(f"dis_{domain}"):
        score = discriminator(y, b.masks, b.membership, settings.architecture)
    loss = 0.5 * lsgan_loss(score, label)
    loss.persistent = True
    return DiscriminatorGraph(y, b, label, loss, kernels.kept_arrays(loss))


def forward_and_backward(loss: nn.Variable, factor: float, kept: List[nn.NdArray]) -> None:
    """Run a graph forward and backward, and free its buffers as early as possible.

    `factor` is a factor on the gradients. `kept` are the arrays that the oneDNN functions hold for their gradients and
    NNabla does not clear (`kernels.kept_arrays`).
    """
    loss.forward(clear_no_need_grad=True)
    loss.backward(factor, clear_buffer=True)
    for array in kept:
        array.clear()
