def predict(x: float) -> float:
    """The smallest model there is: a function. Edit this line, save, and call again."""
    return 2 * x + 1
