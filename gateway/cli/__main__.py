"""`python -m gateway.cli`: how `antiphon up` starts its children."""

from gateway.cli import main

main(prog_name="antiphon")
