"""`python -m diascope.cli`."""

from diascope.cli import main

main()
