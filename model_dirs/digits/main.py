"""Reads a handwritten digit from an 8 × 8 picture. The weights come from train.py."""

import joblib
import numpy

import sandbox

PIXELS = 64


class Digits(sandbox.Model):
    """Classifies a handwritten digit: 64 grey values from 0 (paper) to 16 (ink), row by row."""

    def load(self):
        self.net = joblib.load(self.data_dir / "digits.joblib")

    def predict(self, pixels: list[float]) -> int:
        return self.classify([pixels])[0]

    def predict_batch(self, inputs: list[dict]) -> list:
        return self.classify([each["pixels"] for each in inputs])

    def classify(self, pictures):
        for pixels in pictures:
            if len(pixels) != PIXELS:
                raise ValueError(f"a picture is {PIXELS} numbers, not {len(pixels)}")
        chances = self.net.predict_proba(numpy.array(pictures, dtype=float))
        return [
            sandbox.Prediction(int(self.net.classes_[row.argmax()]), confidence=round(float(row.max()), 4))
            for row in chances
        ]
