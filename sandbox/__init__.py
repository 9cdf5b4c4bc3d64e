"""What a model may import: `Model`, `Prediction`, `preloaded`. Always there in a model.

Standard library only, Python 3.9 to 3.14.

They are imported when first asked for: the agent lives in this package too, and must stay small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.model import Model as Model
    from sandbox.model import Prediction as Prediction
    from sandbox.model import preloaded as preloaded

__all__ = ["Model", "Prediction", "preloaded"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sandbox' has no attribute {name!r}; it has {', '.join(__all__)}")
    from sandbox import model

    return getattr(model, name)
