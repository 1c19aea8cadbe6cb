"""Trials: a training stored once, and many trained here or elsewhere."""
