"""`python -m mitoscope` is the command `mitoscope`."""

from mitoscope.cli import main

main()
