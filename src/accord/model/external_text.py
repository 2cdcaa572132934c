"""Text models of Hugging Face transformers, with the tokenizer they came with; nothing is ever downloaded."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.foreign import local, network_of, not_here, package, require_files, understood
from accord.model.text import require_bytes

Tokens = tuple[Int64[Tensor, "batch token"], Bool[Tensor, "batch token"]]
"""Numbers of tokens, and which of them are there."""


class ExternalText(nn.Module):
    r"""A foreign text model as a backbone: (batch, byte) uint8, UTF-8 with 0 past the end, to (batch, feature_dim).

    The feature is the mean of the last hidden state over the tokens that are there, $\frac{\sum_t m_t h_t}{\sum_t m_t}$ with $m_t$ 0 for
    padding and 1 for all else, marks of beginning and end included; 0 where there is no token. Reimers, Gurevych 2019,
    arXiv:1908.10084. Texts become tokens here, on the CPU, so that views of a text can leave out words and characters of it.

    Args:
        network: takes `input_ids` and `attention_mask`, gives an object with `last_hidden_state` (batch, token, feature).
        tokenizer: of transformers; it needs a token for padding.
        length: greatest number of bytes of a text; more tokens than the model and the tokenizer take are cut off.
        frozen: its parameters get no gradient, so that an optimiser leaves them out, and it always runs as in evaluation.

    Raises:
        UsageError: if network and tokenizer do not fit each other; when called, if the input is no batch of texts.
    """

    def __init__(self, network: nn.Module, tokenizer: Any, *, length: int, frozen: bool = False):
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.frozen = frozen
        longest = length + int(tokenizer.num_special_tokens_to_add())  # a token is a byte or more of them
        takes = getattr(network.config, "max_position_embeddings", longest)
        self.num_tokens = min(longest, int(tokenizer.model_max_length), int(takes))
        self.feature_dim = self._width()
        if frozen:
            network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ExternalText:
        """As for every module, but a frozen network stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def forward(self, x: UInt8[Tensor, "batch byte"]) -> Float[Tensor, "batch feature"]:
        """The features."""
        tokens, there = self.tokens(x)
        if not tokens.shape[1]:
            return torch.zeros(len(x), self.feature_dim, device=x.device)
        hidden: Tensor = self.network(input_ids=tokens, attention_mask=there.long()).last_hidden_state
        summed = hidden.masked_fill(~there[..., None], 0.0).sum(1)
        return summed / there.sum(1, keepdim=True).clamp_min(1)

    def tokens(self, x: UInt8[Tensor, "batch byte"]) -> Tokens:
        """The tokens of each text, as many columns as the longest has."""
        require_bytes(x)
        texts = [row.tobytes().rstrip(b"\0").decode("utf-8", "replace") for row in x.cpu().numpy()]
        found = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.num_tokens, return_attention_mask=True
        )
        shape = (len(texts), -1) if any(found["input_ids"]) else (len(texts), 0)
        ids, mask = (torch.tensor(found[name]).reshape(shape) for name in ("input_ids", "attention_mask"))
        return ids.long().to(x.device), mask.bool().to(x.device)

    @torch.no_grad()
    def _width(self) -> int:
        """The width of the last hidden state of the longest text there can be, tried once."""
        name, training = type(self.network).__name__, self.network.training
        known = self.network.get_input_embeddings().num_embeddings  # type: ignore[operator]
        if max(self.tokenizer.get_vocab().values(), default=0) >= known:
            raise UsageError(
                f"the tokenizer has more tokens than the {known:,} that {name} knows",
                help="choose a model with its own tokenizer",
            )
        self.network.eval()
        try:
            self.tokenizer(["a", "a b"], padding=True)
            tokens = torch.zeros(1, self.num_tokens, dtype=torch.int64)
            hidden: Tensor = self.network(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
            return hidden.shape[-1]
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{name} does not take texts of {self.num_tokens} tokens: {error}",
                help="choose a model that encodes texts, whose tokenizer can pad, and whose tokenizer_config.json says with "
                "model_max_length how many tokens it takes",
            ) from error
        finally:
            self.network.train(training)


def hugging_face_text(
    name: str, *, length: int, pretrained: bool = False, frozen: bool = False, sha256: str | None = None
) -> ExternalText:
    """A text model of Hugging Face transformers with its tokenizer.

    Args:
        name: a folder, or a repository in the local cache ("sentence-transformers/all-MiniLM-L6-v2").
        length: greatest number of bytes of a text.
        pretrained: start from its weights; the tokenizer has to be there in any case.
        frozen: nothing of it is trained, see `ExternalText`.
        sha256: what its files have to be, see `accord.model.foreign.identity`; None: anything.

    Raises:
        EnvironmentFault: transformers is not installed, or configuration, tokenizer or weights are not on this machine.
        ArtifactError: other files than `sha256` says, files that cannot be read, or some weights are missing.
        UsageError: a model that does not take texts.
    """
    transformers = package("transformers", "hf", "transformers")
    require_files(name, sha256, pretrained=pretrained)
    with understood(name):
        config = local(transformers.AutoConfig, name)
        tokenizer = local(transformers.AutoTokenizer, name)
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # made so where there are no files of one
            raise not_here(f"the tokenizer of {name!r}", name)
        network = network_of(transformers, name, config, pretrained=pretrained)
        return ExternalText(network, tokenizer, length=length, frozen=frozen)
