"""To be imported first by an example that needs more than heartline: without it, says what to install."""

import importlib.util
import sys

_PACKAGES = {"numpy": "numpy", "rich": "rich", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}

_missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
if _missing:
    sys.exit(f"This example needs {', '.join(_missing)}: pip install -e '.[demo]'")
