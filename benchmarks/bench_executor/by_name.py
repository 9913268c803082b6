"""
Calls for a parent that has not loaded the application: bytes in, bytes out, functions named by path.

In a child of a template that has loaded it, the import is a look into sys.modules.
"""

from __future__ import annotations

import importlib
import json


def serve(payload: bytes) -> bytes:
    """Call what *payload* names: a module, a function, its arguments."""
    module, name, arguments = json.loads(payload)
    return json.dumps(getattr(importlib.import_module(module), name)(*arguments)).encode()
