"""Federated learning: a trainer at the server, learners at its clients, one connection each.

The trainer calls ``train`` on the learners over their own connections, aggregates what comes back and pushes
the new model to all of them on the topic ``model_push``. What a learner or trainer says is the same on every
transport.
"""

import importlib.util

if importlib.util.find_spec("numpy") is None:
    raise ImportError("heartline.federated needs NumPy: install heartline[federated]")

from heartline.federated._checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from heartline.federated._learner import Learner, run_learner
from heartline.federated._model import Evaluation, Model, TrainResult
from heartline.federated._proxy import LearnerProxy
from heartline.federated._round import RoundReport, TrainerStatistics
from heartline.federated._strategies import Aggregation, FedAvg, Strategy
from heartline.federated._stub import MODEL_TOPIC, LearnerStub, ModelPush, Order, StaleOrder
from heartline.federated._trainer import Trainer

__all__ = [
    "MODEL_TOPIC",
    "Aggregation",
    "Checkpoint",
    "Evaluation",
    "FedAvg",
    "Learner",
    "LearnerProxy",
    "LearnerStub",
    "Model",
    "ModelPush",
    "Order",
    "RoundReport",
    "StaleOrder",
    "Strategy",
    "TrainResult",
    "Trainer",
    "TrainerStatistics",
    "load_checkpoint",
    "run_learner",
    "save_checkpoint",
]
