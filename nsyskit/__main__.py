"""``python -m nsyskit``."""

from nsyskit.cli import main

main()
