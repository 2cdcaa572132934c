"""How long does training wait for images that are decoded in time, neither cached nor held in memory?

    python benchmarks/streaming.py FOLDER [--steps 40] [--batch-size 128] [--out RUN]

FOLDER holds images. The limits under which images are kept decoded are set to 0 for this.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from accord import verbs
from accord.data import encoded
from accord.terminal import Terminal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    encoded.IN_MEMORY = encoded.CACHED = 0
    out = options.out or Path(tempfile.mkdtemp()) / "run"
    settings = [f"training.steps={options.steps}", f"training.batch_size={options.batch_size}"]
    verbs.train(str(options.folder), recipe=None, settings=settings, out=out, terminal=Terminal(as_json=False))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    waiting = [line["waiting"] for line in lines if line.get("waiting") is not None]
    print(f"waiting for data: {100 * statistics.mean(waiting):.3f} % of the time")


if __name__ == "__main__":
    main()
