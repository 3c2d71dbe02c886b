"""`python -m unimodal` is the command line."""

from unimodal.cli import main

main()
