"""Images and how they are split: `load()`, `partition()`. Everything is uint8 tensors."""

from .dataset import Dataset
from .images import Images, Shape, Source, channel_statistics, check_images
from .load import (
    ASSETS,
    CIFAR100_STATISTICS,
    check_name,
    count_classes,
    halves,
    is_built_in,
    is_code,
    load,
    read_prepared,
    stamp,
)
from .names import BUILT_IN
from .partition import PARTITIONINGS, partition, split_validation
from .prepare import prepare
from .shelf import data_folder, forget, prepared

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
    "check_images",
    "check_name",
    "count_classes",
    "data_folder",
    "forget",
    "halves",
    "is_built_in",
    "is_code",
    "load",
    "partition",
    "prepare",
    "prepared",
    "read_prepared",
    "split_validation",
    "stamp",
]
