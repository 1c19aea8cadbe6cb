"""The reviews: sources, file formats, description, and encoding as token ids."""
