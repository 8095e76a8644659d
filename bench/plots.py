"""Plots of a run: `python -m bench.plots RUN.json` in the benchmark's own environment writes RUN-….png beside it."""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

OURS, FLOOR, TARGET = "#1f5fa8", "#808080", "#b03030"
PEERS = ("#c97b12", "#2f8f4e", "#7b4fa3", "#a03060")
ROWS_SECONDS = {10_000: 0.6, 100_000: 6.0, 1_000_000: 60.0}
WIDE = (8, 4.8)


def main() -> None:
    """Write all plots of a run."""
    path = Path(sys.argv[1])
    run: dict[str, Any] = json.loads(path.read_text())
    for name, draw in (("storms", storms), ("intake", intake)):
        figure, axes = plt.subplots(figsize=WIDE, layout="constrained")
        draw(axes, run["measured"])
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.supxlabel(run["title"], fontsize=7, color="#606060")
        figure.savefig(path.with_name(f"{path.stem}-{name}.png"), dpi=120)
        plt.close(figure)


def storms(axes: Any, measured: dict[str, Any]) -> None:  # noqa: ANN401 - matplotlib has no types here
    """Draw when the last of so many that were due at one instant had ended: a straight line is linear cost."""
    lines = [
        ("Lockbox", measured["storms"], OURS, "o"),
        ("floor: the same rows by raw SQL", measured["floor"], FLOOR, "s"),
    ]
    lines += [
        (name.replace("_", " "), peer["storms"], colour, "^")
        for (name, peer), colour in zip(measured["peers"].items(), PEERS, strict=False)
    ]
    for label, runs, colour, mark in lines:
        counts = sorted(map(int, runs))
        seconds = [runs[str(count)]["last_seconds"] for count in counts]
        axes.plot(counts, seconds, color=colour, marker=mark, label=label, linewidth=2 if label == "Lockbox" else 1.2)
    reached = max(map(int, measured["storms"]))
    wanted = {count: limit for count, limit in ROWS_SECONDS.items() if count <= max(reached, min(ROWS_SECONDS))}
    axes.plot(list(wanted), list(wanted.values()), color=TARGET, linestyle=":", marker="_", label="target")
    axes.set(
        xscale="log", yscale="log", xlabel="deadlines due at one instant", ylabel="seconds until the last has ended"
    )
    axes.set_title("Ending deadlines: lower is better, parallel to the target is linear")


def intake(axes: Any, measured: dict[str, Any]) -> None:  # noqa: ANN401 - likewise
    """Draw how many requests a second were accepted over HTTP from how many clients."""
    for label, runs, colour in (
        ("a bare endpoint: one insert", measured["bare"], FLOOR),
        ("Lockbox: request, event, notifications", measured["intake"], OURS),
    ):
        clients = list(runs)
        rates = [runs[name]["a_second"] for name in clients]
        axes.plot(clients, rates, color=colour, marker="o", label=label)
    least = [0.6 * measured["bare"][name]["a_second"] for name in measured["bare"]]
    axes.plot(list(measured["bare"]), least, color=TARGET, linestyle=":", label="target: 60 %")
    axes.set(xlabel="clients", ylabel="accepted a second", ylim=(0, None))
    axes.set_title("Filing requests over HTTP: higher is better")


if __name__ == "__main__":
    main()
