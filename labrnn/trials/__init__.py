"""The trials: training runs, their store, and their execution here or on a cluster."""
