"""What models of other packages have in common: their package, their files on this machine, and that these stay the same.

Nothing is ever downloaded, weights are read as safetensors only, and code that lies beside them is never run.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from accord.errors import AccordError, ArtifactError, EnvironmentFault
from accord.storage import sha256_of

WEIGHTS = ".safetensors"
READ = (".json", ".model", "vocab.txt", "merges.txt")
"""How the files end that say what a model of Hugging Face and its tokenizer are."""

WITH_A_REPORT = {"use_safetensors": True, "output_loading_info": True}


def package(module: str, extra: str, name: str) -> ModuleType:
    """An optional package. Raises `EnvironmentFault`, which names the extra, if it does not import."""
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise EnvironmentFault(
            f"this encoder needs {name}, which does not import: {error}",
            help=f"pip install 'accord[{extra}]'",
            code="E520",
        ) from error


def local(auto: Any, name: str, **options: bool) -> Any:
    """What a class of transformers such as `AutoModel` reads under this name. Raises `EnvironmentFault` if it is not there."""
    try:
        return auto.from_pretrained(name, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ImportError) as error:
        raise not_here(f"configuration, tokenizer or weights of {name!r} ({_in_a_line(error)})", name) from error


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Within the body the files of a model are read and made a network of; any error of another package says that they are no good.

    Raises:
        ArtifactError: in place of such an error.
    """
    try:
        yield
    except (AccordError, MemoryError):
        raise
    except Exception as error:  # a wrong field of config.json can break any line of transformers
        raise ArtifactError(
            f"no model can be made of the files of {name!r}: {type(error).__name__}: {_in_a_line(error)}",
            where=name,
            help="look at its config.json and tokenizer_config.json, or fetch it again",
            code="E417",
        ) from error


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def not_here(what: str, name: str) -> EnvironmentFault:
    """The error for files that are not there, or cannot be read."""
    return EnvironmentFault(
        f"not on this machine: {what}; nothing is downloaded while training",
        help=f"fetch it once with `hf download {name}`, name the folder where it is, or set pretrained to false",
        code="E521",
    )


def without_pooling(make: Callable[..., nn.Module]) -> nn.Module:
    """In float32, without the layer after the last hidden state that some models have: its weights would never get a gradient."""
    try:
        network = make(add_pooling_layer=False)
    except TypeError:
        network = make()
    return network.float()


def network_of(transformers: ModuleType, name: str, config: Any, *, pretrained: bool) -> nn.Module:
    """A model of transformers with its weights, or with fresh ones as `config` says. Raises `ArtifactError` if some are missing."""
    auto = transformers.AutoModel
    if pretrained:
        with _quiet(transformers.utils.logging):
            return without_pooling(lambda **o: _all_of(name, *local(auto, name, **WITH_A_REPORT, **o)))
    return without_pooling(lambda **o: auto.from_config(config, **o))


@contextmanager
def _quiet(logging: ModuleType) -> Iterator[None]:
    """No bar, and no report on weights that are not used; `_all_of` looks for those that are missing."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _all_of(name: str, network: nn.Module, report: dict[str, Any]) -> nn.Module:
    """The network, unless some of its weights were not in the file: transformers makes such at random."""
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if not missing:
        return network
    raise ArtifactError(
        f"{len(missing):,} weights of the model {name!r} are not in its file, {missing[0]} is one",
        where=name,
        help="give the weights of the model that its config.json describes, or set pretrained to false",
        code="E416",
    )


def identity(name: str, *, pretrained: bool) -> str | None:
    """sha256 over the files of a model of Hugging Face: its configuration, its tokenizer, and its weights if they are used.

    None where there are none: a type of model is made by the package alone.

    Args:
        name: a folder, or a repository in the local cache.
        pretrained: whether the weights are used.
    """
    folder = _folder(name)
    if folder is None:
        return None
    digest = hashlib.sha256(b"accord pretrained 1\0")
    for path in sorted(folder.iterdir()):
        if path.name.endswith(READ) or (pretrained and path.name.endswith(WEIGHTS)):
            digest.update(f"{path.name}\0{sha256_of(path)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def require_files(name: str, sha256: str | None, *, pretrained: bool) -> None:
    """Refuses files other than those that a run was trained with; None: nothing is known of them.

    Raises:
        EnvironmentFault: if they are not there.
        ArtifactError: if they are others.
    """
    found = None if sha256 is None else identity(name, pretrained=pretrained)
    if found == sha256:
        return
    if found is None:
        raise not_here(f"the model {name!r} that this recipe names", name)
    raise ArtifactError(
        f"the files of the model {name!r} are not those that the recipe names: their sha256 is {found}, not {sha256}",
        where=name,
        help="put back its configuration, tokenizer and weights as they were, or train again without the key sha256",
        code="E415",
    )


def _folder(name: str) -> Path | None:
    """Where the files of a model are: the folder of this name, or the newest state of a repository in the local cache."""
    if Path(name).is_dir():
        return Path(name)
    hub = package("huggingface_hub", "hf", "huggingface_hub")
    try:
        found = hub.try_to_load_from_cache(name, "config.json")
    except ValueError:  # no name that a repository can have
        return None
    return Path(found).parent if isinstance(found, str) else None
