# SPDX-License-Identifier: Apache-2.0
"""The networks and the training step of this project in plain PyTorch, for comparison (see cpu.py).

Run by a Python that has PyTorch. It answers cases on stdin like `worker.serve`:

    {"what": "layer", "x": [1, 128, 24, 16], "w": [128, 128, 3, 3], "stride": 1, "pad": 0, "reflect": 1,
     "transposed": false, "normalize": true, "activation": "relu"}
    {"what": "generator" or "step", "size": [96, 64], "width": 32, "blocks": 9, "n": 1, "ins_per": 1}

With `--once` it answers one case like `worker.serve_once`, for gpu.py, whose cases have more entries:

    {..., "batch": 4, "type_config": "half", "context": "cudnn", "device_id": "0", "tf32": false,
     "cudnn_algorithm": "heuristic", "warm_up": 5, "times": 10}

Half precision is PyTorch's automatic mixed precision.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, Callable, Dict, Iterable, List, Tuple

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm
from worker import Case, Device, serve, serve_once

ACTIVATIONS = {"": nn.Identity, "relu": nn.ReLU, "leaky_relu": lambda: nn.LeakyReLU(0.2), "tanh": nn.Tanh}


def layer(
    sides: Tuple[int, int],
    kernel: int,
    stride: int = 1,
    pad: int = 0,
    reflect: int = 0,
    transposed: bool = False,
    normalize: bool = True,
    activation: str = "relu",
    spectral: bool = False,
) -> nn.Sequential:
    """A layer from sides[0] to sides[1] channels, as `layers.convolution` describes it."""
    if transposed:
        convolution = nn.ConvTranspose2d(*sides, kernel, stride, pad, output_padding=stride - 1)
    else:
        convolution = nn.Conv2d(*sides, kernel, stride, pad)
    parts = [nn.ReflectionPad2d(reflect)] if reflect else []
    parts += [spectral_norm(convolution) if spectral else convolution]
    parts += [nn.InstanceNorm2d(sides[1])] if normalize else []
    return nn.Sequential(*parts, ACTIVATIONS[activation]())


class ResidualBlock(nn.Module):
    """Two layers with a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sides = (channels, channels)
        self.layers = nn.Sequential(layer(sides, 3, reflect=1), layer(sides, 3, reflect=1, activation=""))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of x and its two layers, of the shape of x."""
        return x + self.layers(x)


def encoder(channels: int, width: int, blocks: int) -> nn.Sequential:
    """The encoder of pictures or masks: features (4 width, H / 4, W / 4)."""
    down = [layer((i * width, 2 * i * width), 3, stride=2, pad=1) for i in (1, 2)]
    residual = [ResidualBlock(4 * width) for _ in range(blocks)]
    return nn.Sequential(layer((channels, width), 7, reflect=3), *down, *residual)


def decoder(features: int, channels: int) -> nn.Sequential:
    """The decoder of pictures or masks, from (features, H / 4, W / 4)."""
    up = [layer((features // i, features // i // 2), 3, stride=2, pad=1, transposed=True) for i in (1, 2)]
    return nn.Sequential(*up, layer((features // 4, channels), 7, reflect=3, normalize=False, activation="tanh"))


class Generator(nn.Module):
    """(x, a) -> (y', b') of pictures (B, 3, H, W) with M masks each (M, B, 1, H, W)."""

    def __init__(self, width: int, blocks: int = 9) -> None:
        super().__init__()
        self.encoder_image, self.encoder_mask = encoder(3, width, blocks), encoder(1, width, blocks)
        self.decoder_image, self.decoder_mask = decoder(8 * width, 3), decoder(12 * width, 1)

    def forward(self, x: Tensor, a: Tensor) -> Tuple[Tensor, Tensor]:
        """Translate pictures and masks; the shapes stay."""
        # one mask after the other, as in the authors' code
        masks = [self.encoder_mask(mask) for mask in a]
        scene = torch.cat([self.encoder_image(x), sum(masks)], 1)
        b = [self.decoder_mask(torch.cat([mask, scene], 1)) for mask in masks]
        return self.decoder_image(scene), torch.stack(b)


def features(channels: int, width: int) -> nn.Sequential:
    """D's feature extractor of pictures or masks."""
    settings = {"kernel": 4, "stride": 2, "pad": 1, "activation": "leaky_relu", "spectral": True}
    inner = [layer((i * width, 2 * i * width), **settings) for i in (1, 2)]
    return nn.Sequential(layer((channels, width), normalize=False, **settings), *inner)


class Discriminator(nn.Module):
    """Scores of patches of a picture with its masks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.feature_image, self.feature_mask = features(3, width), features(1, width)
        self.classifier = nn.Sequential(
            layer((8 * width, 16 * width), 4, pad=1, activation="leaky_relu", spectral=True),
            layer((16 * width, 1), 4, pad=1, normalize=False, activation="", spectral=True),
        )

    def forward(self, x: Tensor, a: Tensor) -> Tensor:
        """Score patches (B, 1, h, w)."""
        masks = sum(self.feature_mask(mask) for mask in a)
        return self.classifier(torch.cat([self.feature_image(x), masks], 1))


def set_l1_loss(real: Iterable[Tensor], other: Iterable[Tensor], slots: int) -> Tensor:
    """As in losses.py."""
    (x, a), (x2, a2) = real, other
    return ((x - x2).abs().sum() + (a - a2).abs().sum()) / (x[:, 0].numel() * (3 + slots))


def context_preserving_loss(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
    """As in losses.py."""
    covered = ((torch.cat([a, b]) + 1) / 2).sum(0)
    return ((1 - covered.clamp(0, 1)) * (x - y).abs()).mean()


class InstaGAN:
    """The four networks, and one training iteration on pictures of each domain."""

    def __init__(self, width: int, blocks: int, ins_per: int, device: str = "cpu", half: bool = False) -> None:
        self.ins_per = ins_per
        self.gen = {"x": Generator(width, blocks), "y": Generator(width, blocks)}
        self.dis = {"x": Discriminator(width), "y": Discriminator(width)}
        self.solver_gen = adam(self.gen.values())
        self.solver_dis = adam(self.dis.values())
        self.precision = partial(precision, device, half)
        # the first scale is that of training/loss_scale.py
        self.scaler = torch.amp.GradScaler(device, init_scale=2.0**13, enabled=half)

    def step(self, batch: Dict[str, Tuple[Tensor, Tensor]]) -> List[Dict[str, Tensor]]:
        """Do all passes of the sequential mini-batch, and return the losses of each. `gen[d]` translates from domain d.

        Only in half precision does it wait for a GPU, to check for an overflow before each update.
        """
        pictures = {domain: x for domain, (x, _) in batch.items()}
        earlier: Dict[str, Tensor] = {domain: a[:0] for domain, (_, a) in batch.items()}
        losses_of_passes: List[Dict[str, Tensor]] = []
        for start in range(0, max(len(a) for _, a in batch.values()), self.ins_per):
            recorded: Dict[str, Tensor] = {}
            losses_of_passes.append(recorded)
            directions = [d for d in (("x", "y"), ("y", "x")) if len(batch[d[0]][1]) > start]
            self.solver_gen.zero_grad()
            self._train_discriminators(False)
            for domain, other in directions:
                x, a = pictures[domain], batch[domain][1][start : start + self.ins_per]
                with self.precision():
                    y, b = self.gen[domain](x, a)
                    losses = self.losses(domain, other, (x, a), (y, b), earlier[domain])
                self.scaler.scale(sum(losses.values())).backward()
                recorded.update({name: loss.detach() for name, loss in losses.items()})
                pictures[domain] = y.detach()
                earlier[domain] = torch.cat([earlier[domain], b.detach()])
            self.scaler.step(self.solver_gen)
            self.solver_dis.zero_grad()
            self._train_discriminators(True)
            for other, domain in directions:
                with self.precision():
                    real = self.dis[domain](*batch[domain])
                    fake = self.dis[domain](pictures[other], earlier[other])
                    loss = 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean())
                self.scaler.scale(loss).backward()
                recorded[f"discriminator_loss_{domain}"] = loss.detach()
            self.scaler.step(self.solver_dis)
            self.scaler.update()
        return losses_of_passes

    def losses(self, domain: str, other: str, real: Tuple, fake: Tuple, earlier: Tensor) -> Dict[str, Tensor]:
        """The losses of the generators in a pass that starts in `domain`."""
        x, a = real
        y, b = fake
        back = self.gen[other]
        score = self.dis[other](y, torch.cat([earlier, b]))
        return {
            f"generator_loss_{other}": ((score - 1) ** 2).mean(),
            f"reconstruction_loss_{domain}": 10 * set_l1_loss(real, back(y, b), self.ins_per),
            f"identity_mapping_loss_{domain}": 10 * set_l1_loss(real, back(x, a), self.ins_per),
            f"context_preserving_loss_{domain}": 10 * context_preserving_loss(x, a, y, b),
        }

    def _train_discriminators(self, requires_grad: bool) -> None:
        for net in self.dis.values():
            net.requires_grad_(requires_grad)


def adam(networks: Iterable[nn.Module]) -> torch.optim.Adam:
    """The solver of some networks."""
    return torch.optim.Adam([p for net in networks for p in net.parameters()], 2e-4, (0.5, 0.999))


def precision(device: str, half: bool) -> torch.autocast:
    """A context in which networks compute in half precision if `half`."""
    return torch.autocast(device, torch.float16, enabled=half)


class Gpu(Device):
    """A GPU as PyTorch sees it, already initialized."""

    def __init__(self, device: str, **about: Any) -> None:
        torch.zeros(1, device=device)
        torch.cuda.set_device(device)
        self.synchronize()
        versions = {"CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
        super().__init__(**about, **versions, GPU=torch.cuda.get_device_name())

    def synchronize(self) -> None:
        """Wait until all work is done."""
        torch.cuda.synchronize()

    def used(self) -> int:
        """The bytes of its memory in use, by any program."""
        free, total = torch.cuda.mem_get_info()
        return total - free

    def reserved(self) -> int:
        """The peak of the bytes that PyTorch had reserved, for tensors and its cache."""
        return torch.cuda.max_memory_reserved()

    def record(self) -> torch.cuda.Event:
        """Return an event that is reached once all work submitted so far is done."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        """The seconds between two events that have been reached."""
        return first.elapsed_time(last) / 1e3


def device_of(case: Case) -> Device:
    """Return the device that a case names, set up as the case says."""
    torch.backends.cudnn.benchmark = case["cudnn_algorithm"] == "fastest"
    torch.backends.cudnn.deterministic = case["cudnn_algorithm"] == "deterministic"
    torch.backends.cudnn.allow_tf32 = case["tf32"]
    torch.backends.cuda.matmul.allow_tf32 = case["tf32"]
    about = {"PyTorch": torch.__version__}
    return Device(**about) if case["context"] == "cpu" else Gpu(f"cuda:{case['device_id']}", **about)


def pictures_of(size: List[int], n: int, batch: int) -> Tuple[Tensor, Tensor]:
    """Noise with rectangles for instances: (B, 3, H, W) and (n, B, 1, H, W)."""
    height, width = size
    a = -torch.ones(n, batch, 1, height, width)
    for i in range(n):
        a[i, :, 0, 5 + i : height // 3 + i, 5 : width // 2] = 1
    return torch.rand(batch, 3, height, width) * 2 - 1, a


def work_of(case: Case) -> Callable[[], Any]:
    """Return the work of a case, to be timed; a layer is run forward and backward."""
    if case["what"] == "layer":
        names = ("stride", "pad", "reflect", "transposed", "normalize", "activation")
        sides = case["w"][:2] if case["transposed"] else case["w"][1::-1]
        net = layer(tuple(sides), case["w"][2], **{name: case[name] for name in names})
        x = torch.randn(case["x"], requires_grad=True)
        gradient = torch.randn_like(net(x))
        return lambda: net(x).backward(gradient)
    device = "cpu" if case.get("context", "cpu") == "cpu" else "cuda"
    half = case.get("type_config") == "half"
    # weights and inputs are created on the device
    with torch.device(device):
        picture = pictures_of(case["size"], case["n"], case.get("batch", 1))
        if case["what"] == "generator":
            return inference(Generator(case["width"], case["blocks"]).eval(), picture, partial(precision, device, half))
        model = InstaGAN(case["width"], case["blocks"], case["ins_per"], device, half)
    return lambda: model.step({"x": picture, "y": picture})


def inference(net: Generator, picture: Tuple[Tensor, Tensor], context: Callable[[], torch.autocast]) -> Callable:
    """Return a translation, to be timed."""

    def work() -> None:
        with torch.no_grad(), context():
            net(*picture)

    return work


if __name__ == "__main__":
    torch.manual_seed(0)
    if "--once" in sys.argv:
        serve_once(device_of, work_of)
    else:
        serve(work_of)
