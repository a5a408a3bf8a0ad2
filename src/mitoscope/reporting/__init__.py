"""Output for people: figures, overlays, galleries, tables, the report and the model card."""
