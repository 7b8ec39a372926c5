"""The real Kubernetes API schema, strict: unknown fields are refused, for each version that the schemas cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from kubernetes_validate import utils

VERSIONS = ("1.33", "1.35", "1.37")
DEPLOY = Path(__file__).parents[2] / "deploy" / "kubernetes"


def require_valid(manifest: dict[str, Any], version: str = VERSIONS[-1]) -> None:
    """Raise `kubernetes_validate.ValidationError` where the object is not one of that version's API."""
    utils.validate(manifest, version, strict=True)


def deploy_files() -> list[Path]:
    """The manifests that the repository ships; the kustomization that lists them is no API object."""
    return sorted(path for path in DEPLOY.glob("*.yaml") if path.name != "kustomization.yaml")


def objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file."""
    return [each for each in yaml.safe_load_all(path.read_text("utf-8")) if each]


def shipped(kind: str, name: str) -> dict[str, Any]:
    """The shipped object of that kind and name."""
    found = [each for path in deploy_files() for each in objects(path)]
    return next(each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name))
