"""The reports: executed notebooks as PDF and HTML, the write-up and the gallery."""
