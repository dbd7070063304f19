"""The package that the sites run: what of the installed code enters it, and its making (before row 0)."""

from server.bundle.build import Bundle, Change, build_bundle, packaged
from server.bundle.contents import app_document, staged_files

__all__ = ["Bundle", "Change", "app_document", "build_bundle", "packaged", "staged_files"]
