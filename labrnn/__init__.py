"""A reproducible lab on LSTM and GRU sentiment classifiers for film reviews."""

from labrnn.folders import provide_caches

provide_caches()  # before Numba, Jupyter and Matplotlib are imported
