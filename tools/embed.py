"""Make the embedded data set: a class-balanced, seeded part of CIFAR-10 as two lossless WebP sheets and their facts.

COLT_DATA=... python tools/embed.py        # needs the full cifar10 (downloaded and prepared where it is missing)
"""

import hashlib
import json

import numpy as np
from PIL import Image

from colt_core.data import ASSETS, read_prepared

tensors, classes, _ = read_prepared("cifar10")
rng = np.random.default_rng(2212_12770)
about, pixels = {"classes": classes, "index": {}}, []
for part, of_each, columns in (("train", 300, 60), ("test", 200, 50)):
    labels = tensors[f"{part}_labels"].numpy()
    index = np.concatenate(
        [np.sort(rng.choice(np.flatnonzero(labels == c), of_each, replace=False)) for c in range(10)]
    )
    images = tensors[f"{part}_images"].numpy()[index]
    sheet = images.reshape(-1, columns, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(-1, columns * 32, 3)
    lossless = {"lossless": True, "quality": 100, "method": 6, "exact": True}
    Image.fromarray(sheet).save(ASSETS / f"cifar10-mini-{part}.webp", **lossless)
    about["index"][part] = index.tolist()
    pixels.append(images.tobytes())
about["sha256"] = hashlib.sha256(b"".join(pixels)).hexdigest()
(ASSETS / "cifar10-mini.json").write_text(json.dumps(about, separators=(",", ":")) + "\n")
