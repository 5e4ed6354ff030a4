"""The data and the model of the federated demo: handwritten digits, and a small network in plain NumPy.

scikit-learn carries the 1,797 images of 8 x 8 pixels with it, so nothing is downloaded. Everything random is
drawn from the seeds given: on one machine, the same seeds train the same model byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Model = list[Array]

PIXELS, HIDDEN, CLASSES = 64, 64, 10
BATCH = 16  # images per step of gradient descent
TEST_SHARE = 0.2  # of all images, held out: no learner ever sees them
DRAWS = 100  # of shards, before it is given up that every learner gets enough images
_CURVE, _FULL, _SHORT, _NOTE = "tab:blue", "lightsteelblue", "lightcoral", "firebrick"  # colours of the plot


class Data(NamedTuple):
    """Images as float32 rows of 64 pixels from 0 to 1, and their digits as integers from 0 to 9."""

    x: Array
    y: Array


class Round(NamedTuple):
    """One point of the learning curve; ``note`` tells what happened to a learner in it, if anything."""

    number: int
    accuracy: float
    learners: int
    note: str | None = None


def load(seed: int) -> tuple[Data, Data]:
    """Return the images to train on and the held-out ones, split at random."""
    # Only who draws the shards needs the images: a learner's process is spared a second of imports.
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    x, y = (digits.data[order] / 16).astype(np.float32), digits.target[order]
    held_out = round(len(order) * TEST_SHARE)
    return Data(x[held_out:], y[held_out:]), Data(x[:held_out], y[:held_out])


def shards(data: Data, count: int, *, seed: int, alpha: float = 0.5) -> list[Data]:
    """Deal ``data`` out to ``count`` learners, unevenly: each has many images of some digits, few of others.

    The images of each digit are divided in proportions drawn from a Dirichlet distribution, so every image
    goes to exactly one learner. A smaller ``alpha`` is more uneven; at 0.5 most learners lack some digits.
    Drawn again until every learner has at least one batch; :exc:`ValueError` if that does not come about.
    """
    random = np.random.default_rng(seed)
    for _ in range(DRAWS):
        owner = np.empty(len(data.y), int)
        for digit in range(CLASSES):
            (images,) = np.nonzero(data.y == digit)
            owner[images] = random.choice(count, size=len(images), p=random.dirichlet([alpha] * count))
        if np.bincount(owner, minlength=count).min() >= BATCH:
            return [Data(data.x[owner == learner], data.y[owner == learner]) for learner in range(count)]
    raise ValueError(f"no {BATCH} images for each of {count} learners: have fewer of them or a larger alpha")


def initial_model(seed: int) -> Model:
    """Return untrained weights and biases of both layers, float32 (He's initialization)."""
    random = np.random.default_rng(seed)
    layers = [(PIXELS, HIDDEN), (HIDDEN, CLASSES)]
    weights = [random.normal(0, np.sqrt(2 / size[0]), size).astype(np.float32) for size in layers]
    return [weights[0], np.zeros(HIDDEN, np.float32), weights[1], np.zeros(CLASSES, np.float32)]


def train(model: Model, x: Array, y: Array, *, epochs: int, learning_rate: float, seed: int) -> Model:
    """Return ``model`` after some epochs of stochastic gradient descent on the images; it stays as it was."""
    random = np.random.default_rng(seed)
    model = [array.copy() for array in model]
    for _ in range(epochs):
        order = random.permutation(len(y))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            for array, slope in zip(model, _gradient(model, x[batch], y[batch]), strict=True):
                array -= np.float32(learning_rate) * slope
    return model


def accuracy(model: Model, x: Array, y: Array) -> float:
    """Return the share of images whose digit the model names, 0 to 1."""
    return float(np.mean(_forward(model, x)[1].argmax(axis=1) == y))


def plot(history: Sequence[Round], path: str | Path) -> None:
    """Write the learning curve to ``path`` as a PNG: accuracy above, the learners of each round below.

    ``history`` holds at least one round. No display is needed.
    """
    # The figure is made without pyplot, which would look for a display and keep state of its own.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    numbers, accuracies, learners, _ = zip(*history, strict=True)
    figure = Figure(figsize=(8, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot(numbers, accuracies, color=_CURVE, marker="o", markersize=4)
    top.set(title="Federated averaging on handwritten digits", ylabel="held-out accuracy")
    # Down to the next tenth below the curve: what happens near the end is worth seeing.
    top.set_ylim(max(np.floor(min(accuracies) * 10 - 0.1) / 10, 0), 1)
    top.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    top.yaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    bottom.bar(numbers, learners, color=[_FULL if count == max(learners) else _SHORT for count in learners])
    bottom.set(xlabel="round", ylabel="learners", xlim=(numbers[0] - 0.6, numbers[-1] + 0.6))
    for axis, bins in ((bottom.xaxis, 10), (bottom.yaxis, 4)):
        axis.set_major_locator(MaxNLocator(bins, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    last = (numbers[-1], accuracies[-1])
    top.annotate(
        f"{accuracies[-1]:.1%}", last, (0, -16), textcoords="offset points", ha="right", color=_CURVE
    )
    _mark(top, bottom, [each for each in history if each.note])
    figure.savefig(path, format="png", dpi=150)


def _mark(top: Any, bottom: Any, noted: Sequence[Round]) -> None:
    """Mark the noted rounds in both panels, with the texts on steps so that neighbours do not overlap."""
    middle = sum(top.get_xlim()) / 2
    for index, each in enumerate(noted):
        for axes in (top, bottom):
            axes.axvline(each.number, color=_NOTE, linestyle=":", linewidth=1)
        side, gap = ("left", 5) if each.number <= middle else ("right", -5)
        top.annotate(
            each.note,
            (each.number, 0.5 - 0.1 * (index % 5)),
            (gap, 0),
            xycoords=top.get_xaxis_transform(),
            textcoords="offset points",
            ha=side,
            color=_NOTE,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )


def _forward(model: Model, x: Array) -> tuple[Array, Array]:
    """Return the hidden layer's values and each digit's score."""
    weights1, biases1, weights2, biases2 = model
    hidden = np.maximum(x @ weights1 + biases1, 0)
    return hidden, hidden @ weights2 + biases2


def _gradient(model: Model, x: Array, y: Array) -> Model:
    """Return the slope of the mean cross-entropy in every parameter."""
    hidden, scores = _forward(model, x)
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(y)), y] -= 1
    by_score = chances / np.float32(len(y))
    by_hidden = (by_score @ model[2].T) * (hidden > 0)
    return [x.T @ by_hidden, by_hidden.sum(axis=0), hidden.T @ by_score, by_score.sum(axis=0)]
