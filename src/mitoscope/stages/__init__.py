"""The stages of dvc.yaml: one module per stage, with one entry function named like the stage."""
