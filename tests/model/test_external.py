"""Backbones of other packages: the real ones where installed, else stand-ins with the same interface."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from accord.errors import EnvironmentFault, UsageError
from accord.model.external import External, hugging_face_backbone, timm_backbone
from accord.train.optim import parameter_groups


class Conv(nn.Module):
    """A convolution that gives features, tokens, or an object that holds a map."""

    def __init__(self, channels: int, form: str):
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 4, 4)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        if self.form == "vector":
            return y.mean((-2, -1))
        return y.flatten(2).mT if self.form == "tokens" else SimpleNamespace(last_hidden_state=y)


def test_every_form_of_output_is_averaged_to_one_vector() -> None:
    torch.manual_seed(0)
    first = Conv(3, "vector")
    x = torch.randn(2, 3, 8, 8)
    for form in ("vector", "tokens", "map"):
        other = Conv(3, form)
        other.load_state_dict(first.state_dict())
        backbone = External(other, channels=3, image_size=8)
        assert backbone.feature_dim == 6
        assert backbone.training
        torch.testing.assert_close(backbone(x), first(x))


def test_images_that_do_not_fit_are_named() -> None:
    with pytest.raises(UsageError, match="Conv does not take images of 1 x 8 x 8"):
        External(Conv(3, "vector"), channels=1, image_size=8)


def test_a_frozen_network_is_left_as_it_came() -> None:
    """Its statistics, its weights and its dropout, while the rest of the model trains."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    head = nn.Linear(6, 2)
    backbone = External(network, channels=3, image_size=8, frozen=True)
    model = nn.Sequential(backbone, head).train()
    assert backbone.training and head.training and not network.training
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1), lr=0.1)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in head.parameters()}
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    assert torch.equal(backbone(x), backbone(x))
    model(x).square().sum().backward()
    optimizer.step()
    assert x.grad is not None and head.weight.grad is not None
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    thawed = External(network.requires_grad_(True), channels=3, image_size=8).train()
    assert thawed.network.training, "the negative control"


def test_hugging_face_frozen_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the part of transformers 5 that is used."""

    class Config(SimpleNamespace):
        def to_dict(self) -> dict[str, Any]:
            return vars(self)

    auto = SimpleNamespace(for_model=lambda name: Config(num_channels=3, image_size=8))
    make = SimpleNamespace(from_config=lambda config, **options: Conv(config.num_channels, "map"))
    package = SimpleNamespace(AutoConfig=auto, AutoModel=make, CONFIG_MAPPING={"tiny": None})
    monkeypatch.setitem(sys.modules, "transformers", package)
    for frozen in (True, False):
        backbone = hugging_face_backbone("tiny", channels=1, frozen=frozen).train()
        assert backbone(torch.rand(2, 1, 8, 8)).shape == (2, 6)
        assert {p.requires_grad for p in backbone.parameters()} == {not frozen}
        assert backbone.network.training is not frozen


def fake_timm(tmp_path: Any) -> dict[str, Any]:
    """The part of timm 1.0 that is used: a network with a fixed size, and one that takes any."""

    def create_model(name: str, *, num_classes: int, in_chans: int, **options: Any) -> nn.Module:
        assert num_classes == 0
        if name == "conv" and "img_size" in options:
            raise TypeError("unexpected keyword argument 'img_size'")
        network = Conv(in_chans, "vector")
        if options.get("pretrained"):
            text = Path(options["pretrained_cfg_overlay"]["file"]).read_text()
            nn.init.constant_(network.conv.weight, float(text))
        return network

    weights = tmp_path / "model.safetensors"
    weights.write_text("0.25")
    hub = SimpleNamespace(try_to_load_from_cache=lambda repo, file: str(weights) if repo == "timm/conv" else None)
    timm = SimpleNamespace(
        is_model=lambda name: name in ("conv", "vit"),
        list_models=lambda: ["conv", "vit"],
        get_pretrained_cfg=lambda name: SimpleNamespace(hf_hub_id=f"timm/{name}", input_size=(3, 24, 24)),
        create_model=create_model,
    )
    return {"timm": timm, "huggingface_hub": hub}


def test_timm(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in fake_timm(tmp_path).items():
        monkeypatch.setitem(sys.modules, name, module)
    assert timm_backbone("conv", channels=1, image_size=16).feature_dim == 6
    assert timm_backbone("vit", image_size=16)(torch.zeros(2, 3, 16, 16)).shape == (2, 6)
    assert timm_backbone("vit").feature_dim == 6
    assert not any(p.requires_grad for p in timm_backbone("vit", frozen=True).parameters())
    loaded = timm_backbone("conv", pretrained=True)
    assert all(p.eq(0.25).all() for n, p in loaded.named_parameters() if n.endswith("weight"))
    with pytest.raises(EnvironmentFault, match=r"weights of 'timm/vit'[\s\S]*hf download timm/vit"):
        timm_backbone("vit", pretrained=True)
    with pytest.raises(UsageError, match=r"no model 'convv'[\s\S]*did you mean conv"):
        timm_backbone("convv")


@pytest.mark.parametrize(
    ("make", "package", "extra"), [(timm_backbone, "timm", "timm"), (hugging_face_backbone, "transformers", "hf")]
)
def test_a_missing_package_is_named_with_its_extra(
    make: Any, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentFault, match=rf"needs {package}[\s\S]*accord\[{extra}\]") as caught:
        make("resnet18")
    assert caught.value.exit_code == 5


def test_hugging_face(tmp_path: Any) -> None:
    """With the real package, if it is installed."""
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    network = transformers.ViTModel(config, add_pooling_layer=False).eval()
    network.save_pretrained(tmp_path)
    backbone = hugging_face_backbone(str(tmp_path), pretrained=True).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(backbone(x), network(x).last_hidden_state.mean(1))
    assert hugging_face_backbone(str(tmp_path), channels=1, image_size=16)(torch.rand(2, 1, 16, 16)).shape == (2, 8)
    with pytest.raises(UsageError, match="does not take images of 3 x 48 x 48"):
        hugging_face_backbone(str(tmp_path), pretrained=True, image_size=48)
    with pytest.raises(EnvironmentFault, match="not on this machine"):
        hugging_face_backbone("nobody/nothing", pretrained=True)
