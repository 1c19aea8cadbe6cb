"""From an executed notebook to PDF, HTML, the write-up and the gallery."""
