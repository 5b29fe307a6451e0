"""Which learning rate suits Adam on conv3? The official code's 0.1, and smaller ones, by validation accuracy.

COLT_DATA=... python tools/adam_rate.py     # 8,000 training and 4,000 validation images of CIFAR-10's training set
"""

import torch

import colt_core as cc
from colt_core.data import read_prepared

tensors, *_ = read_prepared("cifar10")
mini = cc.load("cifar10-mini").train
order = torch.randperm(50_000, generator=torch.Generator().manual_seed(0))
part = lambda index: cc.Images(  # noqa: E731
    tensors["train_images"][index], tensors["train_labels"][index], mini.classes, mini.mean, mini.std
)
train, validation = part(order[:8000]), part(order[8000:12000])
short = cc.Recipe.named("official-adam").changed(epochs=3, rotation=0, batch_size=128, milestones=(2,))
for rate in (3e-4, 1e-3, 3e-3, 1e-2, 0.1):
    network = cc.build("conv3", 10, seed=0)
    history = cc.train(network, train, short.changed(learning_rate=rate), validation=validation, threads=2)
    print(rate, [round(epoch["validation_accuracy"], 3) for epoch in history.epochs], flush=True)
