"""The lab on LSTM and GRU for the sentiment of film reviews: code, notebooks and reports."""

from labrnn.folders import provide_caches

provide_caches()  # before Numba, Jupyter and Matplotlib are imported
