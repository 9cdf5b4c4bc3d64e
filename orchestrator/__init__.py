"""The host side of Model Sandbox: it reads sandbox.yaml and makes the machine match it."""

__version__ = "0.1.0"
