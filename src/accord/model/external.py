"""Backbones of timm and of Hugging Face transformers by name, for who has these packages; nothing is ever downloaded.

Pretrained weights come from the local Hugging Face cache, as safetensors only.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.foreign import local, network_of, not_here, package, require_files, understood


class External(nn.Module):
    """A foreign image model as a backbone: (batch, channel, height, width) to (batch, feature_dim).

    Args:
        network: its result is a tensor, or an object with the tensor `last_hidden_state`; (batch, feature), (batch, token, feature) or
            (batch, feature, height, width): tokens and positions are averaged.
        channels: of the images.
        image_size: side of the images; tried once, here.
        frozen: its parameters get no gradient, so that an optimiser leaves them out, and it always runs as in evaluation: no dropout,
            and batch norms keep the statistics they came with.

    Raises:
        UsageError: if the network does not take such images.
    """

    def __init__(self, network: nn.Module, *, channels: int, image_size: int, frozen: bool = False):
        super().__init__()
        self.network = network
        self.frozen = frozen
        self.feature_dim = self._width(channels, image_size)
        if frozen:
            network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> External:
        """As for every module, but a frozen network stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """The features."""
        result: Any = self.network(x)
        features: Tensor = result if isinstance(result, Tensor) else result.last_hidden_state
        if features.ndim == 4:
            return features.mean((-2, -1))
        return features.mean(1) if features.ndim == 3 else features

    @torch.no_grad()
    def _width(self, channels: int, image_size: int) -> int:
        training = self.network.training
        self.network.eval()
        try:
            features: Tensor = self(torch.zeros(1, channels, image_size, image_size))
            return features.shape[-1]
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UsageError(
                f"{type(self.network).__name__} does not take images of {channels} x {image_size} x {image_size}: {error}",
                help="choose the size and the channels that the model was made for, or another encoder",
            ) from error
        finally:
            self.network.train(training)


def timm_backbone(
    name: str, *, channels: int = 3, image_size: int | None = None, pretrained: bool = False, frozen: bool = False
) -> External:
    """A model of timm without its classifier.

    Args:
        name: as in `timm.list_models()`.
        channels: of the images.
        image_size: side of the images; by default what the model was made for.
        pretrained: start from published weights, which must be in the local cache.
        frozen: nothing of it is trained, see `External`.

    Raises:
        EnvironmentFault: timm is not installed, or the weights are not on this machine.
        UsageError: an unknown name, or images that the model does not take.
    """
    timm = package("timm", "timm", "timm")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise UsageError(
            f"timm has no model {name!r}",
            help=f"did you mean {', '.join(close)}?" if close else "see timm.list_models()",
        )
    options: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    published = timm.get_pretrained_cfg(name)
    if pretrained:
        hub_id = published.hf_hub_id or name
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": _cached_weights(hub_id)}}
    try:
        network = timm.create_model(name, **options, **({} if image_size is None else {"img_size": image_size}))
    except TypeError:  # convolutional models take any size and have no such argument
        network = timm.create_model(name, **options)
    return External(network, channels=channels, image_size=image_size or published.input_size[-1], frozen=frozen)


def hugging_face_backbone(
    name: str,
    *,
    channels: int = 3,
    image_size: int | None = None,
    pretrained: bool = False,
    frozen: bool = False,
    sha256: str | None = None,
) -> External:
    """An image model of Hugging Face transformers; the feature is the mean of its last hidden state.

    Args:
        name: a folder, a repository in the local cache ("facebook/dinov2-small"), or a type of model ("vit", "convnext").
        channels: of the images.
        image_size: side of the images; by default what the configuration says, or 224.
        pretrained: start from its weights, which must be in that folder or in the local cache.
        frozen: nothing of it is trained, see `External`.
        sha256: what its files have to be, see `accord.model.foreign.identity`; None: anything.

    Raises:
        EnvironmentFault: transformers is not installed, or configuration or weights are not on this machine.
        ArtifactError: other files than `sha256` says, files that cannot be read, or some weights are missing.
        UsageError: images that the model does not take.
    """
    transformers = package("transformers", "hf", "transformers")
    require_files(name, sha256, pretrained=pretrained)
    types: list[str] = [] if pretrained else list(transformers.CONFIG_MAPPING)
    with understood(name):
        config = transformers.AutoConfig.for_model(name) if name in types else local(transformers.AutoConfig, name)
        if not pretrained:
            known = config.to_dict()
            for key, value in (("num_channels", channels), ("image_size", image_size)):
                if key in known and value is not None:
                    setattr(config, key, value)
        network = network_of(transformers, name, config, pretrained=pretrained)
        made_for = config.to_dict().get("image_size", 224)
        size = image_size or (made_for if isinstance(made_for, int) else math.gcd(*made_for))
        return External(network, channels=channels, image_size=size, frozen=frozen)


def _cached_weights(hub_id: str) -> str:
    hub = package("huggingface_hub", "timm", "huggingface_hub")
    found = hub.try_to_load_from_cache(hub_id, "model.safetensors")
    if not isinstance(found, str):
        raise not_here(f"the weights of {hub_id!r}", hub_id)
    return found
