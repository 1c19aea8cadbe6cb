"""The lab on LSTM and GRU for the sentiment of film reviews: code, notebooks and reports."""
