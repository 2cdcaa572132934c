"""Every command and every line of Python in the README and the how-tos is run, in order, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
PROGRAMS = {"accord": "accord", "torchrun": "torch.distributed.run"}
BLOCK = re.compile(r"^```(bash|python(?: continued)?)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(arguments: list[str], folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def commands(block: str) -> list[list[str]]:
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_how_to_runs_as_written(page: Path, tmp_path: Path) -> None:
    blocks = BLOCK.findall(page.read_text())
    assert blocks, f"{page} has nothing to run"
    program = ""
    for language, text in blocks:
        if language == "bash":
            for command in commands(text):
                assert command[0] in PROGRAMS, f"{page.name} runs {command[0]}"
                run([sys.executable, "-m", PROGRAMS[command[0]], *command[1:]], tmp_path)
        else:
            program = program + text if language.endswith("continued") else text
            if not _continues(blocks, language, text):
                run([sys.executable, "-c", program], tmp_path)


def _continues(blocks: list[tuple[str, str]], language: str, text: str) -> bool:
    """Whether the next block goes on with this one's program."""
    following = blocks[blocks.index((language, text)) + 1 :]
    return bool(following) and following[0][0].endswith("continued")


def test_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text and "make test" in text
