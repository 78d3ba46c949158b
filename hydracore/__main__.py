"""``python -m hydracore``."""

from hydracore.cli import main

main()
