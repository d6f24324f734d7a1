"""The plots of the README, from committed results: SVG, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

OURS, THEIRS = "#7a3b2e", "#b9b3a8"
STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "ballet_qa",  # the same results give the same file
    "figure.facecolor": "white",  # readable on a dark page too
}


def plot_quality(results: dict[str, Any], folder: Path) -> None:
    """R@1 of every system with its 95 % interval, a panel for each set of questions."""
    sets = results["compared"]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(sets), figsize=(9.5, 4), squeeze=False)
        for panel, (title, made) in zip(panels[0], sets.items(), strict=True):
            rows = sorted(made["rows"].items(), key=lambda row: row[1]["R@1"]["value"])
            names = [name for name, _ in rows]
            values = [held["R@1"] for _, held in rows]
            panel.barh(
                names,
                [v["value"] for v in values],
                xerr=[
                    [v["value"] - v["low"] for v in values],
                    [v["high"] - v["value"] for v in values],
                ],
                color=[OURS if name.startswith("ballet_qa") else THEIRS for name in names],
                ecolor="#555555",
                height=0.7,
            )
            panel.set_title(title)
            panel.set_xlabel("R@1 (right section first), 95 % interval")
        figure.tight_layout()
        save(figure, folder / "quality.svg")


def plot_risk(results: dict[str, Any], folder: Path) -> None:
    """What share of answers is wrong when only the surest questions are answered."""
    with plt.rc_context(STYLE):
        figure, panel = plt.subplots(figsize=(5.5, 3.6))
        for title, made in results["reports"].items():
            if made["answerable"]:
                coverage, risk = zip(*made["risk_coverage"], strict=True)
                panel.plot(coverage, risk, label=title)
        panel.set_xlabel("share of the questions answered, the surest first")
        panel.set_ylabel("share of these whose first passage is wrong")
        panel.set_ylim(0, 1)
        panel.legend(fontsize=7, frameon=False)
        figure.tight_layout()
        save(figure, folder / "risk.svg")


def plot_speed(results: dict[str, Any], folder: Path) -> None:
    """Milliseconds a question against the number of passages, beside what reading them takes."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for made in results["sizes"].values():
        count = made["passages"]
        for name, held in made["systems"].items():
            for kind, warm in (held or {"warm": {}})["warm"].items():
                title = f"ballet_qa {kind}" if name == "ballet_qa" else kind
                lines.setdefault(title, []).append((count, warm["p50_ms"]))
        lines.setdefault("reading our vectors once", []).append((count, made["limit_search_ms"]))
    with plt.rc_context(STYLE):
        figure, panel = plt.subplots(figsize=(7.5, 4.2))
        for title, points in lines.items():
            ours = title.startswith("ballet_qa")
            counts, times = zip(*points, strict=True)
            style = {"color": OURS, "linewidth": 2} if ours else {"linewidth": 0.9}
            dashed = "--" if title.endswith(("ask", "once")) else "-"
            panel.plot(counts, times, dashed, marker=".", label=title, **style)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("passages")
        panel.set_ylabel("ms a question, warm, p50")
        panel.legend(fontsize=7, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
        figure.tight_layout()
        save(figure, folder / "speed.svg")


def plot_reading(results: dict[str, Any], folder: Path) -> None:
    """R@1 against the time that reading takes: one point for each number of passages read."""
    with plt.rc_context(STYLE):
        figure, panel = plt.subplots(figsize=(6.0, 3.6))
        for title, made in results["sets"].items():
            times = list(made["reading_ms"].values())
            orders = [made["orders"][f"all evidence, {count} read"] for count in made["reading_ms"]]
            shares = [held["R@1"]["value"] for held in orders]
            (line,) = panel.plot(times[:-1], shares[:-1], marker=".", label=title)
            panel.plot(times[-1:], shares[-1:], marker="*", color=line.get_color())
            first = made["orders"]["search alone"]["R@1"]["value"]
            panel.axhline(first, linestyle=":", linewidth=0.9, color=line.get_color())
            for count, at, share in zip(made["reading_ms"], times, shares, strict=True):
                panel.annotate(count, (at, share), textcoords="offset points", xytext=(2, 4))
        panel.set_xlabel(
            "ms to read so many passages, p50 (star: the default; dotted: search alone)"
        )
        panel.set_ylabel("R@1")
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=7, frameon=False)
        figure.tight_layout()
        save(figure, folder / "reading.svg")


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
