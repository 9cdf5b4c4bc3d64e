"""Environment images: what is in one, and how it is built. It knows nothing of containers that run models."""
