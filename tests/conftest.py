"""What many tests share: the command line in this process, and one small trained run."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

DATA = os.environ.get("ACCORD_DATA", "")


class Outcome(NamedTuple):
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        parsed: dict[str, Any] = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        return parsed


def invoke_here(arguments: tuple[str, ...], capture: Callable[[], tuple[str, str]]) -> Outcome:
    from accord import cli

    handler, argv = signal.getsignal(signal.SIGINT), sys.argv
    sys.argv = ["accord", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        out, err = capture()
        return Outcome(end.code if isinstance(end.code, int) else 1, out, err)
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.argv = argv


@pytest.fixture
def accord(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """``accord("train", "digits", "--json")``: a command in this process."""
    return lambda *arguments: invoke_here(tuple(map(str, arguments)), capsys.readouterr)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on the digits for a few epochs and evaluated."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    for arguments in (["train", "digits", "--epochs", "8", "--out", str(run)], ["evaluate", str(run)]):
        outcome = invoke_here(tuple(arguments), lambda: ("", ""))
        assert outcome.code == 0, f"{arguments} ended with {outcome.code}"
    return run


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real data sets."""
    if not DATA or not Path(DATA).is_dir():
        pytest.skip("ACCORD_DATA does not name the folder with real data")
    return Path(DATA)


@pytest.fixture
def tiny_bert() -> Callable[..., Path]:
    """``tiny_bert(folder, sentences)``: a BERT of 16 numbers, and a tokenizer trained on the sentences; it needs the extra hf."""
    return _tiny_bert


def _tiny_bert(folder: Path, sentences: Sequence[str], *, seed: int = 0) -> Path:
    import tokenizers
    import transformers

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=80, special_tokens=marks, show_progress=False)
    words.train_from_iterator(sentences, trainer)
    words.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=24, **named).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=80, max_position_embeddings=32, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    return folder
