"""An encoder without a model: how often each letter stands in a text."""

import numpy as np


class Letters:
    """Args:
    weight: of the letter e.
    """

    dimensions = 26

    def __init__(self, *, weight: float = 1.0) -> None:
        self.settings = {"weight": weight}

    def encode_queries(self, texts):
        counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], np.float32)
        counts[:, 4] *= self.settings["weight"]
        counts = counts.reshape(-1, 26) + 1e-3
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    encode_passages = encode_queries
