"""Evaluation: matching by the MIDOG rule, metrics at both levels, thresholds and intervals by patient."""
