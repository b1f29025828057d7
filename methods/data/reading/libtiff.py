"""libtiff writes its own lines to standard error; what it says also comes back as an error."""

import contextlib
import ctypes

from PIL import _imaging


def silence() -> None:
    """Takes libtiff's error handler away, where Pillow has a libtiff that can be reached."""
    with contextlib.suppress(AttributeError, OSError):  # no such symbol, or no such library
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)
