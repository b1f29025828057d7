"""Shapes in signatures are checked under pytest, and only here."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook("methods", "beartype.beartype").__enter__()
