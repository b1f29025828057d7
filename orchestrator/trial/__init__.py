"""One trial in a worker, without Ray: train, evaluate, prove the price, keep checkpoints."""
