"""Trains the weights that main.py loads: `python train.py [FILE]`, in an environment made from requirements.txt.

Prints the accuracy on the fifth of the data set that it did not train on.
"""

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

WEIGHTS = Path(__file__).parent / "data" / "digits.joblib"


def split():
    """Pictures and digits to train on, pictures and digits to test with: the same split at every call."""
    pictures, digits = load_digits(return_X_y=True)
    seen, unseen, seen_digits, unseen_digits = train_test_split(
        pictures, digits, test_size=0.2, random_state=0, stratify=digits
    )
    return seen, seen_digits, unseen, unseen_digits


def train(path):
    """Train, write the weights, return the accuracy on what was not trained on."""
    seen, seen_digits, unseen, unseen_digits = split()
    net = make_pipeline(MinMaxScaler(), MLPClassifier((64,), alpha=0.01, max_iter=400, random_state=0))
    net.fit(seen, seen_digits)
    joblib.dump(net, path, compress=3)
    return net.score(unseen, unseen_digits)


if __name__ == "__main__":
    print(f"accuracy {train(sys.argv[1] if len(sys.argv) > 1 else WEIGHTS):.4f}")
