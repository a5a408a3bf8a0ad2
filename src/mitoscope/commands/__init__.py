"""What people run besides the stages: one module per command, with one entry function named like it."""
