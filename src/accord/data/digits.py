"""The built-in data: 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn (UCI; Alpaydin, Kaynak 1998)."""

from __future__ import annotations

import numpy as np

from accord.data.vectors import Labels


def digits() -> tuple[np.ndarray, Labels]:
    """Images (1797, 1, 8, 8) uint8, their 17 grey values 0..16 scaled to 0..255, and their labels. No network is needed."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    return pixels, Labels(labels.astype(np.int64), tuple("0123456789"))
