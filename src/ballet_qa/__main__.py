"""``python -m ballet_qa`` is the command line."""

from ballet_qa.cli import main

main()
