"""Images and how they are split: `load()`, `partition()`. Everything is uint8 tensors."""

from .images import Dataset, Images, Shape, Source, channel_statistics
from .load import (
    ASSETS,
    BUILT_IN,
    CIFAR100_STATISTICS,
    check_name,
    halves,
    is_built_in,
    is_code,
    load,
    read_prepared,
    stamp,
)
from .partition import PARTITIONINGS, partition, split_validation
from .prepare import data_folder, prepare

__all__ = [
    "ASSETS",
    "BUILT_IN",
    "CIFAR100_STATISTICS",
    "PARTITIONINGS",
    "Dataset",
    "Images",
    "Shape",
    "Source",
    "channel_statistics",
    "check_name",
    "data_folder",
    "halves",
    "is_built_in",
    "is_code",
    "load",
    "partition",
    "prepare",
    "read_prepared",
    "split_validation",
    "stamp",
]
