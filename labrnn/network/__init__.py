"""The classifier: batches, recurrent layers, optimisers, training and prediction."""
