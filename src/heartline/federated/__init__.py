"""Federated learning: a trainer at the server, learners at its clients, one connection each.

The trainer calls ``train`` on the learners over their own connections, aggregates what comes back and pushes
the new model to all of them on the topic ``model_push``. A server has several federations side by side, by
their names. What a learner or trainer says is the same on every
transport.
"""

import importlib.util

if importlib.util.find_spec("numpy") is None:
    raise ImportError("heartline.federated needs NumPy: install heartline[federated]")

from heartline.federated._checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from heartline.federated._config import ConfigSource
from heartline.federated._federation import LEARNERS_TOPIC, MODEL_TOPIC
from heartline.federated._learner import Learner, run_learner
from heartline.federated._model import Evaluation, Model, TrainResult
from heartline.federated._proxy import LearnerProxy
from heartline.federated._report import FederationFailed, RoundReport, TrainerStatistics
from heartline.federated._strategies import Aggregation, FedAvg, StatefulStrategy, Strategy
from heartline.federated._stub import LearnerStub, ModelPush, Order, StaleOrder
from heartline.federated._trainer import Trainer

__all__ = [
    "LEARNERS_TOPIC",
    "MODEL_TOPIC",
    "Aggregation",
    "Checkpoint",
    "ConfigSource",
    "Evaluation",
    "FedAvg",
    "FederationFailed",
    "Learner",
    "LearnerProxy",
    "LearnerStub",
    "Model",
    "ModelPush",
    "Order",
    "RoundReport",
    "StaleOrder",
    "StatefulStrategy",
    "Strategy",
    "TrainResult",
    "Trainer",
    "TrainerStatistics",
    "load_checkpoint",
    "run_learner",
    "save_checkpoint",
]
