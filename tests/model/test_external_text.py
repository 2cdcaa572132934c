"""Text models of other packages: pooling by hand, and that a run finds the files it was trained with; the real package if it is there."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from accord.errors import ArtifactError, EnvironmentFault, UsageError
from accord.model.external_text import ExternalText, hugging_face_text
from accord.model.foreign import identity, require_files, understood
from accord.train.optim import parameter_groups

WORDS = ("a", "red", "hat", "two", "blue", "hats", "on", "chair", "the", "is")
SENTENCES = ("a red hat", "two blue hats on a chair", "the chair is red", "")
Bert = Callable[..., Path]


def encoded(*texts: str, length: int = 32) -> Tensor:
    rows = [list(text.encode()[:length]) for text in texts]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.uint8)


class Words:
    """A tokenizer with the interface of transformers: a number for each word, 0 for padding on the left or the right."""

    def __init__(self, *, side: str = "right", model_max_length: int = 100):
        self.vocabulary = {
            "": 0,
            **{word: i for i, word in enumerate(WORDS, 1)},
        }
        self.side, self.model_max_length = side, model_max_length

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary

    def num_special_tokens_to_add(self) -> int:
        return 0

    def __call__(
        self, texts: list[str], *, padding: bool, max_length: int = 100, **_: Any
    ) -> dict[str, list[list[int]]]:
        rows = [[self.vocabulary.get(word, 0) for word in text.split()][:max_length] for text in texts]
        longest = max(map(len, rows))
        found: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": []}
        for row in rows:
            rest = [0] * (longest - len(row))
            for name, values in (("input_ids", row), ("attention_mask", [1] * len(row))):
                found[name].append(rest + values if self.side == "left" else values + rest)
        return found


class Table(nn.Module):
    """An embedding of each token by itself, with dropout; padding is not a number, as it may be where all of a row is hidden."""

    def __init__(self, known: int = 11, places: int = 100):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.dropout = nn.Embedding(known, 6), nn.Dropout(0.5)
        self.config = SimpleNamespace(max_position_embeddings=places)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        hidden = self.dropout(self.embedding(input_ids)).masked_fill(attention_mask[..., None] == 0, torch.nan)
        return SimpleNamespace(last_hidden_state=hidden)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_feature_is_the_mean_over_the_tokens_that_are_there(side: str) -> None:
    network, words = Table(), Words(side=side)
    backbone = ExternalText(network, words, length=32).eval()
    found = backbone(encoded(*SENTENCES))
    for row, text in zip(found, SENTENCES, strict=True):
        vectors = [network.embedding.weight[words.vocabulary[word]] for word in text.split()]
        expected = torch.stack(vectors).mean(0) if vectors else torch.zeros(6)
        torch.testing.assert_close(row, expected)
    assert backbone.feature_dim == 6 and backbone(encoded("", "")).eq(0).all()


def test_what_is_longer_than_the_model_takes_is_cut_and_half_a_character_does_no_harm() -> None:
    backbone = ExternalText(Table(places=2), Words(), length=32).eval()
    assert backbone.num_tokens == 2
    torch.testing.assert_close(backbone(encoded("a red hat")), backbone(encoded("a red")))
    assert ExternalText(Table(), Words(model_max_length=3), length=32).num_tokens == 3
    assert ExternalText(Table(), Words(), length=7).num_tokens == 7
    assert backbone(encoded("a caf\u00e9", length=6)).isfinite().all()


def test_a_frozen_text_model_is_left_as_it_came() -> None:
    head = nn.Linear(6, 2)
    backbone = ExternalText(Table(), Words(), length=32, frozen=True)
    model = nn.Sequential(backbone, head).train()
    assert backbone.training and not backbone.network.training
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1), lr=0.1)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in head.parameters()}
    x = encoded("a red hat")
    assert torch.equal(backbone(x), backbone(x))
    thawed = ExternalText(Table(), Words(), length=32).train()
    assert not torch.equal(thawed(x), thawed(x)), "the negative control: dropout"
    thawed(x).sum().backward()
    assert thawed.network.embedding.weight.grad is not None


def test_a_model_and_a_tokenizer_that_do_not_fit_are_named() -> None:
    with pytest.raises(UsageError, match="more tokens than the 5 that Table knows"):
        ExternalText(Table(known=5), Words(), length=32)
    broken = Table()
    broken.forward = lambda **_: (_ for _ in ()).throw(ValueError("decoder_input_ids are missing"))  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="does not take texts of 32 tokens: decoder_input_ids"):
        ExternalText(broken, Words(), length=32)
    with pytest.raises(UsageError, match="uint8"):
        ExternalText(Table(), Words(), length=32)(torch.zeros(2, 8))


def test_the_identity_of_a_model_is_that_of_its_files(tmp_path: Path) -> None:
    for name, text in (("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors", "w"), ("README.md", "r")):
        (tmp_path / name).write_text(text)
    whole, bare = (identity(str(tmp_path), pretrained=pretrained) for pretrained in (True, False))
    assert whole is not None and bare is not None and whole != bare
    (tmp_path / "README.md").write_text("another")
    require_files(str(tmp_path), whole, pretrained=True)
    (tmp_path / "model.safetensors").write_text("v")
    require_files(str(tmp_path), bare, pretrained=False)
    with pytest.raises(ArtifactError, match=rf"are not those[\s\S]*not {whole}[\s\S]*train again"):
        require_files(str(tmp_path), whole, pretrained=True)
    (tmp_path / "tokenizer.json").write_text("{ }")
    with pytest.raises(ArtifactError):
        require_files(str(tmp_path), bare, pretrained=False)
    require_files(str(tmp_path), None, pretrained=True)


def test_a_repository_of_the_local_cache_is_known_by_its_newest_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")

    def found(name: str, file: str) -> str | None:
        if name.count("/") > 1:
            raise ValueError("no name of a repository")
        return str(tmp_path / file) if name == "some/bert" else None

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(try_to_load_from_cache=found))
    sha256 = identity("some/bert", pretrained=True)
    assert sha256 == identity(str(tmp_path), pretrained=True) and sha256 is not None
    assert identity("other/bert", pretrained=True) is None is identity("/not/a/folder", pretrained=True)
    with pytest.raises(EnvironmentFault, match="not on this machine"):
        require_files("other/bert", sha256, pretrained=True)


def test_the_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EnvironmentFault, match=r"needs transformers[\s\S]*accord\[hf\]"):
        hugging_face_text("bert", length=32)


def test_hugging_face_texts(tmp_path: Path, tiny_bert: Bert) -> None:
    """With the real package, if it is installed."""
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    folder = tiny_bert(tmp_path / "bert", SENTENCES)
    network = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    backbone = hugging_face_text(str(folder), length=40, pretrained=True, frozen=True)
    found = backbone(encoded(*SENTENCES, length=40))
    for row, text in zip(found, SENTENCES, strict=True):
        expected = network(**tokenizer([text], return_tensors="pt")).last_hidden_state.mean(1)[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(copy.deepcopy(backbone)(encoded("a red hat")), backbone(encoded("a red hat")))
    assert not any("pooler" in name for name, _ in backbone.named_parameters())
    fresh = hugging_face_text(str(folder), length=40)
    assert not torch.equal(fresh.eval()(encoded("a red hat")), backbone(encoded("a red hat")))
    half = transformers.AutoModel.from_pretrained(folder).to(torch.bfloat16)
    half.save_pretrained(folder)
    parameters = hugging_face_text(str(folder), length=40, pretrained=True).parameters()
    assert {p.dtype for p in parameters} == {torch.float32}


def test_hugging_face_without_weights_or_tokenizer(tmp_path: Path, tiny_bert: Bert) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    folder = tiny_bert(tmp_path / "bert", SENTENCES)
    sha256 = identity(str(folder), pretrained=True)
    assert hugging_face_text(str(folder), length=8, pretrained=True, sha256=sha256).feature_dim == 16
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:200])
    with pytest.raises(ArtifactError, match="Error while deserializing"):
        hugging_face_text(str(folder), length=8, pretrained=True)
    (folder / "model.safetensors").write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    for key, value in (("hidden_size", 8), ("hidden_size", "wide"), ("hidden_act", "none"), ("pad_token_id", 1000)):
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(ArtifactError, match=r"no model can be made of the files[\s\S]*look at its config\.json"):
            hugging_face_text(str(folder), length=8, pretrained=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EnvironmentFault, match=r"model\.safetensors"):
        hugging_face_text(str(folder), length=8, pretrained=True)
    with pytest.raises(ArtifactError, match="are not those"):
        hugging_face_text(str(folder), length=8, pretrained=True, sha256=sha256)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(EnvironmentFault, match="not on this machine: the tokenizer"):
        hugging_face_text(str(folder), length=8)
    shutil.rmtree(folder)
    config = transformers.AutoConfig.from_pretrained(tiny_bert(folder, SENTENCES))
    config.num_hidden_layers = 3
    config.save_pretrained(folder)
    with pytest.raises(ArtifactError, match=r"16 weights of the model [\s\S]* are not in its file"):
        hugging_face_text(str(folder), length=8, pretrained=True)
    shutil.rmtree(folder)
    with pytest.raises(EnvironmentFault, match="not on this machine"):
        hugging_face_text("nobody/nothing", length=8)


def test_too_little_memory_is_no_fault_of_the_files() -> None:
    with pytest.raises(MemoryError), understood("a model"):
        raise MemoryError
    with pytest.raises(ArtifactError, match=r"the files of 'a model': TypeError: wide"), understood("a model"):
        raise TypeError("wide")
