"""What dvc.yaml runs: one module per stage, with one entry function named like the stage."""
