"""What a newcomer gets wrong with each kind of data: the exit code, the culprit by name, a remedy that fits, and no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.data.test_sounds import wav

Accord = Callable[..., Any]
STEPS = [f"2024-01-{1 + i // 24:02d} {i % 24:02d}:00,{i % 7},{'north' if i % 2 else 'south'}" for i in range(300)]
FILES = {
    "things.csv": ["a,b,name", *(f"{i / 7:.3f},{i / 9:.3f},thing {i}" for i in range(40))],
    "cells.csv": ["a,b", *(f"{i},{'oops' if i == 5 else i / 3}" for i in range(40))],
    "gaps.csv": ["a,b", *(f"{i},{'' if i == 5 else i / 3}" for i in range(40))],
    "endless.csv": ["a,b", *(f"{i},{'inf' if i == 5 else i / 3}" for i in range(40))],
    "paths.csv": ["view,name", *(f"view {i}.png,thing {i}" for i in range(40))],
    "gone.csv": ["text,n", *(f"{'' if i % 3 == 0 else f'word {i}'},{i}" for i in range(40))],
    "steps.csv": ["date,v,site", *STEPS],
    "short.csv": ["date,v", *(line.rsplit(",", 1)[0] for line in STEPS[:20])],
    "cell.csv": ["date,v,site", *(line.replace(" 05:00,", " 05:00,x") for line in STEPS)],
    "dates.csv": ["date,v,site", *(line.replace("2024-01-02 03:00", "yesterday") for line in STEPS)],
    "german.csv": ["date,v,site", *(f"01.02.2024 {i // 60:02d}:{i % 60:02d},{i % 7},north" for i in range(100))],
    "days.csv": ["date,v", *(f"202401{i:02d},{i % 7}" for i in range(1, 31))],
    "one.csv": [f"{i % 3},{i:02d}" for i in range(40)],
    "heard.csv": ["sound,n", *(f"whole/{i}.wav,{i}" for i in range(9))],
    "empty.csv": [],
    "header.csv": ["a,b,name"],
    "bad.ts": ["@data", "1,2,3", "1,x,3"],
    "song.mp3": ["ID3"],
}


class Case(NamedTuple):
    """Arguments after ``accord train``, the exit code and that of the error, and what is said."""

    arguments: str
    exit: int
    code: str
    says: tuple[str, ...]


FUTURE = "--set pairing.name=future"
MASKED = "--set pairing.name=masked"
CASES = [
    Case("things.csv --x a,bb --y name", 2, "E234", ('no column "bb"', "things.csv", 'did you mean "b"')),
    Case("things.csv --x a --y name --kind name=number", 2, "E246", ('"name" cannot be number', "text or category")),
    Case("things.csv --x a --y name --kind name=image", 3, "E323", ('no file "thing 0"', "things.csv:0", "--kind")),
    Case("paths.csv --x view --y name", 3, "E323", ('view: there is no file "view 0.png"', "paths.csv:0", "--kind")),
    Case("things.csv --x a --y name --time b", 2, "E234", ("things.csv", "leave out either x and y, or time")),
    Case(
        "things.csv --x a --y name --set encoder.width=8", 2, "E204", ("encoder.width", "set encoder.name", "tabular")
    ),
    Case("cells.csv --x a --y b", 3, "E333", ('"b" holds "oops"', "cells.csv:5", "leave a missing one empty")),
    Case(f"cells.csv {MASKED}", 3, "E333", ('"b" holds "oops"', "cells.csv:5", "leave a missing one empty")),
    Case("gaps.csv", 3, "E331", ('"b" is nan', "gaps.csv:5", "data.impute=0.0", MASKED)),
    Case("endless.csv", 3, "E331", ('"b" is inf', "endless.csv:5", "help: drop these rows\n")),
    Case(f"endless.csv {MASKED}", 3, "E331", ('"b" is inf', "endless.csv:5", "leave the cells empty")),
    Case("gone.csv --x text", 3, "E390", ("gone.csv:0", "the value is missing", "max_bad_fraction=")),
    Case("empty.csv --x a --y name", 3, "E338", ("empty CSV file", "empty.csv")),
    Case(f"header.csv {MASKED}", 3, "E338", ("header but no rows", "header.csv")),
    Case(
        f"short.csv --time date {FUTURE}", 3, "E381", ("20 steps, 60 are needed", "short.csv:0-19", "shorter context")
    ),
    Case("short.csv --time date", 3, "E319", ("1 series to train on", "short.csv", "data.window")),
    Case(f"steps.csv --time day {FUTURE}", 2, "E234", ('no column "day"', "steps.csv", "known: date, v, site")),
    Case(f"cell.csv --time date {FUTURE}", 3, "E333", ('"v" holds "x5"', "cell.csv:5", "decimal point")),
    Case(f"dates.csv --time date {FUTURE}", 3, "E382", ("yesterday", "dates.csv:27", "write times as")),
    Case(f"german.csv --time date {FUTURE}", 3, "E382", ('"01.02.2024 00:00"', "german.csv:0", "ISO 8601", "--time")),
    Case(f"days.csv --time date {FUTURE}", 3, "E382", ("holds 20240101", "days.csv:0", "2024-01-01")),
    Case("one.csv", 3, "E333", ('"0,00" seems to be one number', "one.csv:line 1", "decimal point", "a,b")),
    Case(
        "whole --set data.seconds=1e9", 2, "E227", ("data.seconds = 1e+09", "longest sound is 0.2 s", "or leave it out")
    ),
    Case("whole --set data.seconds=1e308", 2, "E227", ("recipe:data.seconds", "this machine has")),
    Case("heard.csv --x sound --y n --set data.x.seconds=1e9", 2, "E227", ("data.x.seconds", "longest sound is 0.2 s")),
    Case("bad.ts", 3, "E380", ('"x" is no number', "bad.ts:3", '"?"')),
    Case("song.mp3", 2, "E220", ('kind ".mp3"', "song.mp3", "ffmpeg -i FILE NEW.wav")),
    Case("nothing", 3, "E318", ("no images or sounds", ".jpg", ".wav", "nothing")),
    Case("cut", 3, "E386", ("claims 3200 bytes, 356 are there", "cut/broken.wav", "copy or download")),
    Case("blank", 3, "E303", ("empty file", "blank/broken.wav", "delete it")),
    Case("notes", 3, "E386", ("not a WAV file", "notes/broken.wav", "save it as WAV")),
    Case("fast", 3, "E387", ("16000 steps per second, the others have 8000", "fast/broken.wav", "ffmpeg")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the files above, an empty folder, and folders of sounds of which one is broken."""
    root = tmp_path_factory.mktemp("wrong")
    for name, lines in FILES.items():
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    (root / "nothing").mkdir()
    tone = wav(9000 * np.sin(np.arange(1600) / 3))
    broken = {
        "cut": tone[:400],
        "blank": b"",
        "notes": b"to be recorded",
        "fast": wav(9000 * np.sin(np.arange(99)), 16000),
    }
    for name, data in {**broken, "whole": wav(9000 * np.sin(np.arange(800)))}.items():
        (root / name).mkdir()
        for i in range(9):
            (root / name / f"{i}.wav").write_bytes(wav(9000 * np.sin(np.arange(1600) / (2 + i))))
        (root / name / "broken.wav").write_bytes(data)
    return root


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.arguments)
def test_it_is_refused_by_name_with_a_remedy(
    case: Case, folder: Path, tmp_path: Path, accord: Accord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = accord("train", *case.arguments.split(), "--set", "training.steps=1", "--out", tmp_path / "run")
    assert (done.code, f"error[{case.code}]" in done.err) == (case.exit, True), done.err
    assert "help: " in done.err and "--> " in done.err and "Traceback" not in done.err
    for words in case.says:
        assert words in done.err, f"{words!r} is not in: {done.err}"
