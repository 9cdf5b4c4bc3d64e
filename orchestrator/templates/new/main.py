"""{{ name }}: edit and save, and the next call gets the new code."""


def predict(text: str, repeat: int = 1) -> dict:
    """Count the words of a text. The type hints are the model's input schema."""
    words = text.split() * repeat
    return {"words": len(words), "longest": max(words, key=len, default="")}
