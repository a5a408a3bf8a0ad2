"""The commands besides the stages: one module per command, with one entry function named like the command."""
