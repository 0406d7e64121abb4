"""``python -m xpnn`` is the command ``xpnn``."""

import sys

from .cli.main import main

sys.exit(main())
