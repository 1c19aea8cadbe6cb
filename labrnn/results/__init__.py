"""The results: statistics, figures, tables and sentences computed from stored trials."""
