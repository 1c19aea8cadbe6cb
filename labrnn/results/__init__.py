"""What the trials say: statistics, figures, tables, sentences."""
