"""The data plane: one process that owns clients' connections, and calls models for them."""
