"""The classifier: batches, recurrent layers, optimisers, training, prediction."""
