"""Model files and profiles, led from a ref to what the planner works with; what of them is at hand. Start at `load`."""

from meshnode.models.errors import ModelFileError
from meshnode.models.inventory import InventoryEntry, Presence, read_inventory
from meshnode.models.load import load_model, load_model_blocking
from meshnode.models.manifest import complete_manifest, sampled_manifest
from meshnode.models.package import EMBEDDING, OUTPUT, ModelPackage, PackageFile, PackageKind
from meshnode.models.refs import ResolvedRef, find_models, profile_names, resolve_ref
from meshnode.models.variants import neighbours, smaller_variants

__all__ = [
    "EMBEDDING",
    "OUTPUT",
    "InventoryEntry",
    "ModelFileError",
    "ModelPackage",
    "PackageFile",
    "PackageKind",
    "Presence",
    "ResolvedRef",
    "complete_manifest",
    "find_models",
    "load_model",
    "load_model_blocking",
    "neighbours",
    "profile_names",
    "read_inventory",
    "resolve_ref",
    "sampled_manifest",
    "smaller_variants",
]
