"""``python -m xpnn`` is the command ``xpnn``."""

import sys

from .scripts.main import main

sys.exit(main())
