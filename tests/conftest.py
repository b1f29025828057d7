"""Shapes in signatures are checked under pytest, and only here."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-")  # the user's own stays as it is
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

from jaxtyping import install_import_hook

install_import_hook("methods", "beartype.beartype").__enter__()
