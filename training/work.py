# SPDX-License-Identifier: Apache-2.0
"""The work of a training iteration: the multiply-adds of its convolutions, forward and backward, as plain arithmetic.

Everything else is little beside them. Layers and calls are those of models.py, training/graphs.py and instagan.py.
Sizes are (height, width) in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Sequence, Tuple

import numpy as np

from data.instances import mini_batches
from models import DOMAINS, OTHER, Architecture
from training.settings import Settings

Size = Tuple[int, int]


@dataclass(frozen=True)
class Work:
    """The multiply-adds of a stack of convolutions on one sample: those of the `first` layer, and the `total`."""

    first: int
    total: int

    def trained(self, with_input_gradient: bool = False) -> int:
        """Forward, and as much again for the gradients of the weights, and for those of each layer's input.

        The gradient of the first layer's input is computed only on demand.
        """
        return 3 * self.total - (0 if with_input_gradient else self.first)


def iteration_work(settings: Settings, instance_counts: Dict[str, Sequence[int]]) -> float:
    """The multiply-adds of an iteration, on average over the training pictures.

    `instance_counts` are the numbers of instances of the pictures in each domain, "x" and "y".
    """
    work = 0.0
    for domain in DOMAINS:
        # a picture without an instance has an empty mask
        real_masks = np.mean([max(1, count) for count in instance_counts[OTHER[domain]]])
        real = discriminator_pass_work(settings, float(real_masks))
        work += float(np.mean([_picture_work(settings, count, real) for count in instance_counts[domain]]))
    return settings.batch_size * work


def generator_pass_work(settings: Settings, masks: int, earlier: int) -> int:
    """One picture with `masks` in the generators' graph, and its `earlier` masks for D.

    It holds G on the picture, the other G on two pictures, and D with constant weights.
    """
    arch = settings.architecture
    size = settings.size
    with_masks = settings.ins_per > 0
    picture = encoder_work(3, arch, size)
    mask = encoder_work(1, arch, size)
    decoders = decoder_work(8 * arch.ngf, 3, size)
    if with_masks:
        decoders += masks * decoder_work(12 * arch.ngf, 1, size)
    there = picture.trained() + masks * mask.trained() + 3 * decoders
    back = picture.trained(True) + masks * mask.trained(with_masks) + 3 * decoders
    # (x, a) is constant, but under instance normalization one batch with (y', b')
    together = arch.norm == "instance"
    identity = picture.trained(together) + masks * mask.trained(together and with_masks) + 3 * decoders
    # D's weights get no gradients; masks that are constant get none either
    mask_features = features_work(1, arch, size).total
    score = 2 * (features_work(3, arch, size).total + classifier_work(arch, size))
    score += (2 if with_masks else 1) * masks * mask_features + earlier * mask_features
    return there + back + identity + score


def discriminator_pass_work(settings: Settings, masks: float) -> float:
    """One picture, real or fake, with `masks` in the graph of a discriminator."""
    arch = settings.architecture
    size = settings.size
    picture = features_work(3, arch, size).trained() + 3 * classifier_work(arch, size)
    return picture + masks * features_work(1, arch, size).trained()


def encoder_work(inputs: int, arch: Architecture, size: Size) -> Work:
    """An encoder of G on a picture (`inputs` 3) or on a mask (1)."""
    pixels = size[0] * size[1]
    ngf = arch.ngf
    first = 49 * inputs * ngf * pixels
    down = 9 * ngf * 2 * ngf * pixels // 4 + 9 * 2 * ngf * 4 * ngf * pixels // 16
    blocks = arch.n_blocks * 2 * 9 * (4 * ngf) ** 2 * pixels // 16
    return Work(first, first + down + blocks)


def decoder_work(inputs: int, outputs: int, size: Size) -> int:
    """A decoder of G, from `inputs` channels at a quarter of the size to a picture (`outputs` 3) or a mask (1)."""
    pixels = size[0] * size[1]
    up = 9 * inputs * (inputs // 2) * pixels // 16 + 9 * (inputs // 2) * (inputs // 4) * pixels // 4
    return up + 49 * (inputs // 4) * outputs * pixels


def features_work(inputs: int, arch: Architecture, size: Size) -> Work:
    """A feature extractor of D on a picture (`inputs` 3) or on a mask (1)."""
    height, width = size
    works = []
    for i in range(arch.n_layers_D):
        height //= 2
        width //= 2
        channels = arch.ndf * min(2**i, 8)
        works.append(16 * inputs * channels * height * width)
        inputs = channels
    return Work(works[0], sum(works))


def classifier_work(arch: Architecture, size: Size) -> int:
    """The two layers of D that score the patches of a picture with its masks."""
    height, width = (side // 2**arch.n_layers_D for side in size)
    inputs = 2 * arch.ndf * min(2 ** (arch.n_layers_D - 1), 8)
    channels = 2 * arch.ndf * min(2**arch.n_layers_D, 8)
    return 16 * channels * (inputs * (height - 1) * (width - 1) + (height - 2) * (width - 2))


def _picture_work(settings: Settings, count: int, real: float) -> float:
    """All passes of a picture with `count` instances; `real` is the work of D on a real picture in each of them."""
    work = 0.0
    for part in mini_batches(count, settings.ins_per):
        masks = max(1, part.stop - part.start)
        work += generator_pass_work(settings, masks, part.start)
        work += discriminator_pass_work(settings, part.start + masks) + real
    return work
