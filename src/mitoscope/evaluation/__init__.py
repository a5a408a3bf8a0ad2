"""Numbers: matching by the MIDOG rule, metrics, thresholds and intervals by patient."""
