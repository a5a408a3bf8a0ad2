"""How fast the project is, measured: `python -m benchmarks` writes results.json, results.md and pictures/ here."""
