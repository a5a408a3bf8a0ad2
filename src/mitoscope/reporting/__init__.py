"""What people look at: figures, overlays, galleries, tables, the report, the model card."""
