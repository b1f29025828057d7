"""A working folder whose files are named like modules."""

from pathlib import Path

BROKEN = 'raise SystemError("imported from the working folder")\n'
SHADOWS = ("methods.py", "isoflop.py", "random.py", "types.py", "socket.py", "numpy.py")


def shadow(folder: Path) -> Path:
    """Fills a folder with modules that nothing may import."""
    (folder / "orchestrator").mkdir(parents=True)
    (folder / "orchestrator" / "__init__.py").write_text(BROKEN)
    for name in SHADOWS:
        (folder / name).write_text(BROKEN)
    return folder
