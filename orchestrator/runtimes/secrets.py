"""A replica's secrets as files in its own folder on the host, which nobody but its owner may enter."""

from __future__ import annotations

import os
import posixpath

from orchestrator.plan.types import SECRETS, ModelDesired
from orchestrator.ports import ReplicaPlace


def folder_of(place: ReplicaPlace) -> str:
    """The folder that a replica sees as /run/secrets. It goes with the replica's folder."""
    return os.path.join(place.folder, "secrets")


def write(model: ModelDesired, place: ReplicaPlace, uid: int) -> None:
    """Write them for the replica's user, where the model has any. The folder above keeps the host's others out."""
    if not model.secrets:
        return
    folder = folder_of(place)
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o755)  # noqa: S103 - the replica's user must pass
    for secret in model.secrets:
        file = os.path.join(folder, posixpath.relpath(secret.path, SECRETS))
        os.makedirs(os.path.dirname(file), mode=0o755, exist_ok=True)
        aside = f"{file}.new"
        with open(aside, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
            opened.write(secret.content)
        if os.geteuid() == 0:
            os.chown(aside, uid, uid)
        os.chmod(aside, secret.mode)
        os.replace(aside, file)
