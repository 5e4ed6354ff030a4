"""A learner of the digits demo: the program that runs where the data is.

It holds some images of handwritten digits that never leave it. It connects to a trainer, gets the current
model, trains it on its images when it is asked to, and sends back what became of the model. When the trainer
has finished, the learner ends; when the trainer has gone for good, it gives up after some seconds.

`federated_digits.py` starts several of these. By hand it is

    python examples/digits_learner.py tcp://127.0.0.1:4000 learner-1.npz

The file's name is the learner's identity: started again, it is known again.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import _digits
import numpy as np
import trio

from heartline import Backoff, HeartlineError
from heartline.federated import Learner, Model, TrainResult, run_learner

PATIENCE = 5.0  # seconds for a first connection: the demo's server is there before its learners
RECONNECT = Backoff(initial=0.2, maximum=1.0, attempts=6)  # four seconds at most; trainers of days get more


class DigitsLearner(Learner):
    """All that a learner has to be: a ``train`` method."""

    def __init__(self, data: _digits.Data) -> None:
        self._data = data

    def train(self, model: Model, config: dict[str, Any]) -> TrainResult:
        """Train from the global model; not async, so that it runs in a thread and heartbeats go on."""
        model = _digits.train(model, *self._data, **config)
        # How many images the result stands for is its weight in the average of all learners.
        return TrainResult(model=model, samples=len(self._data.y))


def main() -> None:
    """Take part in the federation at the given URL with the data of the given file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="where the trainer listens")
    parser.add_argument("shard", type=Path, help="an .npz file with the arrays x and y: images and digits")
    options = parser.parse_args()
    try:
        with np.load(options.shard) as file:
            data = _digits.Data(file["x"], file["y"])
    except OSError as error:
        parser.error(str(error))
    identity = options.shard.stem
    learner = partial(
        run_learner,
        options.url,
        DigitsLearner(data),
        identity=identity,
        patience=PATIENCE,
        reconnect=RECONNECT,
    )
    try:
        trio.run(learner)
    except HeartlineError as error:
        sys.exit(f"{identity}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
