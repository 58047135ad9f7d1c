"""The support bundle: what somebody who helps needs to see of a node, in one zip, with every secret blotted out."""

from meshnode.bundle.archive import BundleExists, write_bundle
from meshnode.bundle.contents import Piece, gathered
from meshnode.bundle.redactor import BundleRedactor
from meshnode.bundle.secrets_here import secrets_of

__all__ = ["BundleExists", "BundleRedactor", "Piece", "gathered", "secrets_of", "write_bundle"]
