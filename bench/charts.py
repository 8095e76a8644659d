"""Draw charts of a run: `python -m bench.charts RUN.json`, in the peers' environment, writes RUN-….png beside it."""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

OURS, FLOOR, TARGET = "#1f5fa8", "#808080", "#b03030"
PEERS = ("#c97b12", "#2f8f4e", "#7b4fa3", "#a03060")
OF_FLOOR_SECONDS = 1.4
OF_FLOOR_SUBMITS = 0.4
WIDE = (8, 4.8)


def main() -> None:
    """Write all charts of a run."""
    path = Path(sys.argv[1])
    run: dict[str, Any] = json.loads(path.read_text())
    for name, draw in (("storms", storms), ("submits", submits)):
        figure, axes = plt.subplots(figsize=WIDE, layout="constrained")
        draw(axes, run["measured"])
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.supxlabel(run["title"], fontsize=7, color="#606060")
        figure.savefig(path.with_name(f"{path.stem}-{name}.png"), dpi=120)
        plt.close(figure)


def storms(axes: Any, measured: dict[str, Any]) -> None:  # noqa: ANN401 - matplotlib has no types here
    """Draw when the last of many requests with the same deadline had ended: a straight line means linear cost."""
    floor = {count: run["last_seconds"] for count, run in measured["floor_storms"].items()}
    lines = [
        ("Lockbox", measured["storms"], OURS, "o"),
        ("floor: the same rows by raw SQL", measured["floor_storms"], FLOOR, "s"),
    ]
    lines += [
        (name.replace("_", " "), peer["storms"], colour, "^")
        for (name, peer), colour in zip(measured["peers"].items(), PEERS, strict=False)
    ]
    for label, runs, colour, mark in lines:
        counts = sorted(map(int, runs))
        seconds = [runs[str(count)]["last_seconds"] for count in counts]
        axes.plot(counts, seconds, color=colour, marker=mark, label=label, linewidth=2 if label == "Lockbox" else 1.2)
    counts = sorted(map(int, floor))
    wanted = [OF_FLOOR_SECONDS * floor[str(count)] for count in counts]
    axes.plot(counts, wanted, color=TARGET, linestyle=":", marker="_", label="target: 1.4 times the floor")
    axes.set(
        xscale="log", yscale="log", xlabel="deadlines due at one instant", ylabel="seconds until the last has ended"
    )
    axes.set_title("Deadlines at once: lower is better, parallel to the floor is linear")


def submits(axes: Any, measured: dict[str, Any]) -> None:  # noqa: ANN401 - likewise
    """Draw how many requests a second were accepted over HTTP, by the number of clients."""
    for label, runs, colour in (
        ("a bare endpoint: one row", measured["floor_submits"], FLOOR),
        ("a bare endpoint: all rows of a submit", measured["floor_rows"], PEERS[0]),
        ("Lockbox", measured["submits"], OURS),
    ):
        rates = [runs[name]["a_second"] for name in runs]
        axes.plot(list(runs), rates, color=colour, marker="o", label=label)
    bare = measured["floor_submits"]
    least = [OF_FLOOR_SUBMITS * bare[name]["a_second"] for name in bare]
    axes.plot(list(bare), least, color=TARGET, linestyle=":", label="target: 40 % with 8 clients")
    axes.set(xlabel="clients", ylabel="accepted a second", ylim=(0, None))
    axes.set_title("Requests submitted over HTTP: higher is better")


if __name__ == "__main__":
    main()
